//! The propagation of mounts, as CRIU is told of it.
//!
//! An image says of a mount whose slave it is by the number of a group of mounts. Of a group that the host has CRIU takes one mount
//! from outside as the source for all that are of it, and the kernel refuses that (MOVE_MOUNT_SET_GROUP, EINVAL) where the
//! root of the one is not above the root of the other: of two directories of one file system, for one. On a host whose
//! mounts are shared every container has such mounts. So each mount gets a group of its own before CRIU reads of it: its
//! source is then what is laid out for it. And where that is no slave, since this host is another one, it has no group: CRIU
//! would fail on it. Nor does the kernel copy a group of peers to a root that is not below: what was shared with the host, and so
//! with other mounts of the same file system, comes back as a group of its own.
//!
//! What CRIU reads is a changed copy, mounted over the image in the namespace that it alone has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use prost::Message;

use crate::error::{CallContext, Context};
use crate::rootfs::Laid;
use crate::{Error, Result};

/// What comes before the entries: two numbers that say what kind of file it is.
const MAGIC_BYTES: usize = 8;

/// Numbers of groups that no kernel has given: it counts from 1, and has one for each mount at most.
const FIRST_GROUP: u32 = 0x4000_0000;

/// `mnt_entry` of `images/mnt.proto` in CRIU's sources, as far as it is needed.
#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(uint32, required, tag = "3")]
    root_dev: u32,
    #[prost(string, required, tag = "6")]
    root: String,
    #[prost(string, required, tag = "7")]
    mountpoint: String,
    #[prost(uint32, optional, tag = "10")]
    shared_id: Option<u32>,
    #[prost(uint32, optional, tag = "11")]
    master_id: Option<u32>,
    #[prost(bool, optional, tag = "13")]
    ext_mount: Option<bool>,
    #[prost(string, optional, tag = "18")]
    ext_key: Option<String>,
}

impl Entry {
    /// The name of a mount from outside: its index.
    fn index(&self) -> Option<usize> {
        let old_form = || self.ext_mount.unwrap_or_default().then_some(self.root.as_str());
        self.ext_key.as_deref().or_else(old_form)?.parse().ok()
    }
}

/// The fields that are changed: of a field that is there twice the last one counts.
#[derive(Clone, PartialEq, Message)]
struct Groups {
    #[prost(uint32, optional, tag = "10")]
    shared_id: Option<u32>,
    #[prost(uint32, optional, tag = "11")]
    master_id: Option<u32>,
}

/// Covers those of the images in `images` that tell of mounts, each by a copy in `stage` that suits what is laid out there.
/// For the process that becomes CRIU, in its own mount namespace.
///
/// # Errors
/// An image that is not understood; the call that failed.
pub fn cover(images: &Path, stage: &Path, laid: &Laid) -> Result<()> {
    let call = || format!("read({images:?})");
    let mut names = BTreeMap::new();
    for entry in std::fs::read_dir(images).call(call)? {
        let name = entry.call(call)?.file_name();
        if name.to_str().is_some_and(|name| name.starts_with("mountpoints-") && name.ends_with(".img")) {
            let path = images.join(&name);
            names.insert(name, std::fs::read(&path).call(|| format!("read({path:?})"))?);
        }
    }
    let changed =
        change(names.values().map(Vec::as_slice), laid).during(|| format!("{images:?}: mountpoints-*.img"))?;
    for (name, content) in names.keys().zip(changed) {
        let (path, copy) = (images.join(name), stage.join(name));
        std::fs::write(&copy, content).call(|| format!("write({copy:?})"))?;
        mount(Some(&copy), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .call(|| format!("mount({copy:?}, {path:?}, MS_BIND)"))?;
    }
    Ok(())
}

/// The images, changed.
fn change<'a>(images: impl Iterator<Item = &'a [u8]>, laid: &Laid) -> Result<Vec<Vec<u8>>> {
    let images = images.map(|image| Ok((image, entries(image)?))).collect::<Result<Vec<_>>>()?;
    let all = || images.iter().flat_map(|(_, entries)| entries.iter().map(|(entry, _)| entry));
    let own: BTreeSet<u32> = all().filter_map(|entry| entry.shared_id).collect();
    // CRIU takes any mount from outside of the same file system for what is not from outside itself.
    let unfit: BTreeSet<u32> = all()
        .filter(|entry| entry.index().is_some_and(|index| !laid.is_slave(index)))
        .map(|entry| entry.root_dev)
        .collect();
    let mut numbers = FIRST_GROUP..;
    let mut new = || numbers.next().ok_or_else(|| Error::Refused("too many mounts".into()));
    let mut of_peers = BTreeMap::new();
    let mut groups = |entry: &Entry| -> Result<Groups> {
        let shared = entry.shared_id.filter(|shared| *shared != 0);
        // Peers stay peers as far as CRIU can make them so: by a copy from the one with the widest root.
        let widest = |shared| all().filter(|peer| peer.shared_id == Some(shared)).min_by_key(|peer| peer.root.len());
        let alone =
            shared.and_then(widest).is_some_and(|widest| !Path::new(&entry.root).starts_with(Path::new(&widest.root)));
        let mut changed = Groups { shared_id: alone.then(&mut new).transpose()?, master_id: None };
        if let Some(master) = entry.master_id.filter(|master| *master != 0 && !own.contains(master)) {
            let fits = match entry.index() {
                Some(index) => laid.is_slave(index),
                None => laid.root && !unfit.contains(&entry.root_dev),
            };
            changed.master_id = Some(match (fits, shared) {
                (false, _) => 0,
                (true, Some(shared)) if !alone => match of_peers.get(&(shared, master)) {
                    Some(group) => *group,
                    None => *of_peers.entry((shared, master)).or_insert(new()?),
                },
                (true, _) => new()?,
            });
        }
        Ok(changed)
    };
    let mut changed = Vec::new();
    for (image, entries) in &images {
        let mut content = image[..MAGIC_BYTES].to_vec();
        for (entry, bytes) in entries {
            let groups = groups(entry)?.encode_to_vec();
            let length = u32::try_from(bytes.len() + groups.len()).map_err(|_| Error::Refused("too long".into()))?;
            content.extend(length.to_le_bytes());
            content.extend(*bytes);
            content.extend(groups);
        }
        changed.push(content);
    }
    Ok(changed)
}

/// The entries of an image: each is its length, in four bytes, and a message.
fn entries(image: &[u8]) -> Result<Vec<(Entry, &[u8])>> {
    let short = || Error::Refused("cut off".into());
    let mut rest = image.get(MAGIC_BYTES..).ok_or_else(short)?;
    let mut entries = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| short())?;
        let (bytes, after) = after.split_at_checked(length).ok_or_else(short)?;
        entries.push((Entry::decode(bytes).map_err(|error| Error::Refused(error.to_string()))?, bytes));
        rest = after;
    }
    if rest.is_empty() { Ok(entries) } else { Err(short()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(mountpoint: &str, shared_id: u32, master_id: u32, index: Option<usize>) -> Entry {
        Entry {
            root_dev: 7,
            root: "/".to_owned(),
            mountpoint: mountpoint.to_owned(),
            shared_id: Some(shared_id),
            master_id: Some(master_id),
            ext_mount: index.map(|_| true),
            ext_key: index.map(|index| index.to_string()),
        }
    }

    fn image(entries: &[Entry]) -> Vec<u8> {
        let mut image = b"12345678".to_vec();
        for entry in entries {
            let bytes = entry.encode_to_vec();
            image.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
            image.extend(bytes);
        }
        image
    }

    fn changed(saved: &[Entry], root: bool, parts: &[bool]) -> Vec<Entry> {
        let laid = Laid { root, parts: parts.to_vec() };
        let image = image(saved);
        let changed = change([image.as_slice()].into_iter(), &laid).unwrap().remove(0);
        assert_eq!(changed[..8], image[..8]);
        let entries = super::entries(&changed).unwrap();
        // Nothing but the one field is another.
        for (saved, (changed, _)) in saved.iter().zip(&entries) {
            let (shared_id, master_id) = (saved.shared_id, saved.master_id);
            assert_eq!(Entry { shared_id, master_id, ..changed.clone() }, *saved);
        }
        entries.into_iter().map(|(entry, _)| entry).collect()
    }

    fn masters(saved: &[Entry], root: bool, parts: &[bool]) -> Vec<Option<u32>> {
        changed(saved, root, parts).into_iter().map(|entry| entry.master_id).collect()
    }

    #[test]
    fn peers_whose_roots_are_not_one_below_the_other_are_peers_no_more() {
        let mut saved = [
            entry("/in", 9, 0, Some(0)),
            entry("/in/again", 9, 0, Some(1)),
            entry("/other", 9, 0, Some(2)),
            entry("/slave", 0, 9, None),
        ];
        for (entry, root) in saved.iter_mut().zip(["/in", "/in/a", "/inner", "/in"]) {
            entry.root = root.to_owned();
        }
        let groups = changed(&saved, true, &[true; 3]).into_iter().map(|entry| (entry.shared_id, entry.master_id));
        let expected = [(9, 0), (9, 0), (FIRST_GROUP, 0), (0, 9)].map(|(shared, master)| (Some(shared), Some(master)));
        assert_eq!(groups.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn each_slave_of_the_host_has_a_group_of_its_own_and_no_other_mount_is_touched() {
        let saved = [
            entry("/", 0, 1, None),
            entry("/one", 0, 1, Some(0)),
            entry("/two", 0, 1, Some(1)),
            entry("/proc", 0, 0, None),
            entry("/peer", 40, 1, Some(2)),
            entry("/peer/again", 40, 1, Some(3)),
            entry("/inner", 0, 40, None),
        ];
        let new = |number| Some(FIRST_GROUP + number);
        let expected = vec![new(0), new(1), new(2), Some(0), new(3), new(3), Some(40)];
        assert_eq!(masters(&saved, true, &[true; 4]), expected);
    }

    #[test]
    fn what_is_no_slave_on_this_host_has_no_group() {
        let mut saved = [entry("/", 0, 1, None), entry("/one", 0, 1, Some(0)), entry("/two", 0, 1, Some(1))];
        assert_eq!(masters(&saved, false, &[false, false]), [Some(0); 3]);
        assert_eq!(masters(&saved, true, &[true, false]), [Some(0), Some(FIRST_GROUP), Some(0)]);
        // The second is of another file system: no source for the root.
        saved[2].root_dev = 8;
        let expected = [Some(FIRST_GROUP), Some(FIRST_GROUP + 1), Some(0)];
        assert_eq!(masters(&saved, true, &[true, false]), expected);
        // One that nothing is laid out for.
        assert_eq!(masters(&[entry("/one", 0, 1, Some(9))], true, &[]), [Some(0)]);
    }

    #[test]
    fn an_image_that_is_cut_off_is_refused() {
        let whole = image(&[entry("/", 0, 1, None)]);
        for length in [0, 7, 9, 11, 13, whole.len() - 1] {
            assert!(entries(&whole[..length]).is_err(), "{length}");
        }
        assert_eq!(entries(&whole).unwrap().len(), 1);
        assert!(entries(&whole[..8]).unwrap().is_empty());
    }
}
