//! What the ids of an idmapped mount are: the fields of the mount, or crun's option `idmap=uids=0-1-10#10-11-10;gids=0-100-10`.

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, Mount};

use super::Idmap;
use crate::plan::IdMappings;
use crate::sys::mount::Recursion;

/// An option that asks for an idmapped mount with its mappings: whether of the tree, and what comes after `=`.
pub(super) fn option(name: &str) -> Option<(Recursion, &str)> {
    let top = name.strip_prefix("idmap=").map(|mappings| (Recursion::Top, mappings));
    top.or_else(|| name.strip_prefix("ridmap=").map(|mappings| (Recursion::Tree, mappings)))
}

/// From the option that asks for it without mappings, the mappings that an option gave, and the fields of the mount.
pub(super) fn plan(
    option: Option<Recursion>,
    given: Option<IdMappings>,
    mount: &Mount,
) -> Result<Option<Idmap>, String> {
    let fields = IdMappings {
        uid: mount.uid_mappings().clone().unwrap_or_default(),
        gid: mount.gid_mappings().clone().unwrap_or_default(),
    };
    let IdMappings { uid, gid } = match given {
        Some(_) if fields != IdMappings::default() => {
            return Err("uidMappings, gidMappings and the option idmap= say the same".into());
        }
        given => given.unwrap_or(fields),
    };
    if uid.is_empty() != gid.is_empty() {
        return Err("uidMappings and gidMappings need each other".into());
    }
    // Mappings alone ask for it too, as in runc.
    let recursion = option.or((!uid.is_empty()).then_some(Recursion::Top));
    Ok(recursion.map(|recursion| Idmap { recursion, uid_mappings: uid, gid_mappings: gid }))
}

/// Reads `uids=…;gids=…`: triplets of the id in the file system, the id on the host and the count, with `#` between them. One
/// that begins with `@` is relative to the mappings of the container, `own`.
pub(super) fn parse(text: &str, own: &IdMappings) -> Result<IdMappings, String> {
    let mut mappings = IdMappings::default();
    for part in text.split(';').filter(|part| !part.is_empty()) {
        let (list, own, triplets) = match part.split_once('=') {
            Some(("uids", triplets)) => (&mut mappings.uid, &own.uid, triplets),
            Some(("gids", triplets)) => (&mut mappings.gid, &own.gid, triplets),
            _ => return Err(format!("idmap: {part:?} is neither uids= nor gids=")),
        };
        for triplet in triplets.split('#') {
            list.push(mapping(triplet, own).ok_or_else(|| format!("idmap: {triplet:?} is not ID-ID-COUNT"))??);
        }
    }
    if mappings.uid.is_empty() || mappings.gid.is_empty() {
        return Err(format!("idmap: {text:?}: uids and gids need each other"));
    }
    Ok(mappings)
}

fn mapping(triplet: &str, own: &[LinuxIdMapping]) -> Option<Result<LinuxIdMapping, String>> {
    let absolute = triplet.strip_prefix('@');
    let mut numbers = absolute.unwrap_or(triplet).splitn(3, '-').map(|number| number.parse::<u32>().ok());
    let (inside, mut host, size) = (numbers.next()??, numbers.next()??, numbers.next()??);
    if absolute.is_some() {
        let holds =
            |one: &&LinuxIdMapping| inside.checked_sub(one.container_id()).is_some_and(|offset| offset < one.size());
        // The host's id moves as far as the container's own mapping moves the id.
        let moved = own.iter().find(holds).and_then(|one| {
            let id = i64::from(host) + i64::from(one.host_id()) - i64::from(one.container_id());
            u32::try_from(id).ok()
        });
        match moved {
            Some(moved) => host = moved,
            None => return Some(Err(format!("idmap: {triplet:?}: {inside} is not mapped by the container"))),
        }
    }
    if size == 0 || inside.checked_add(size - 1).is_none() || host.checked_add(size - 1).is_none() {
        return Some(Err(format!("idmap: {triplet:?} exceeds the range of ids")));
    }
    let built = LinuxIdMappingBuilder::default().container_id(inside).host_id(host).size(size).build();
    Some(built.map_err(|error| error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mappings(list: &[(u32, u32, u32)]) -> Vec<LinuxIdMapping> {
        let one = |&(container, host, size): &(u32, u32, u32)| {
            LinuxIdMappingBuilder::default().container_id(container).host_id(host).size(size).build().unwrap()
        };
        list.iter().map(one).collect()
    }

    #[test]
    fn the_mappings_of_the_option_are_absolute_or_relative_to_the_containers() {
        let own = mappings(&[(0, 0, 1), (1, 2, 1000)]);
        let own = IdMappings { uid: own.clone(), gid: own };
        for (text, uid, gid) in [
            ("uids=0-1-10#10-11-10;gids=0-100-10", mappings(&[(0, 1, 10), (10, 11, 10)]), mappings(&[(0, 100, 10)])),
            ("gids=0-0-1;uids=@1-3-10", mappings(&[(1, 4, 10)]), mappings(&[(0, 0, 1)])),
            ("uids=@0-7-1#5-5-1;gids=@2-2-2", mappings(&[(0, 7, 1), (5, 5, 1)]), mappings(&[(2, 3, 2)])),
        ] {
            assert_eq!(parse(text, &own).unwrap(), IdMappings { uid, gid }, "{text}");
        }
    }

    #[test]
    fn what_is_no_mapping_is_refused_in_one_line() {
        let own = IdMappings::default();
        for text in [
            "",
            "uids=0-0-1",
            "uids=0-0;gids=0-0-1",
            "uids=0-0-x;gids=0-0-1",
            "uids=0-0-0;gids=0-0-1",
            "uids=-1-0-1;gids=0-0-1",
            "uids=4294967295-0-2;gids=0-0-1",
            "uids=@0-0-1;gids=0-0-1",
            "uid=0-0-1;gids=0-0-1",
            "uids=0-0-1#;gids=0-0-1",
        ] {
            let error = parse(text, &own).unwrap_err();
            assert!(error.starts_with("idmap: ") && !error.contains('\n'), "{text}: {error}");
        }
    }
}
