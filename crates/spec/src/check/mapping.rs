//! Id mappings: user_namespaces(7) says what the kernel takes.

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, Process, Spec};

use super::Findings;

/// UID_GID_MAP_MAX_EXTENTS since Linux 4.15; the kernel answers EINVAL to more.
const MOST: usize = 340;

pub(super) fn check(spec: &Spec, linux: &Linux, found: &mut Findings) {
    let user_namespace = linux.namespaces().iter().flatten().find(|one| one.typ() == LinuxNamespaceType::User);
    for (field, list) in [("uidMappings", linux.uid_mappings()), ("gidMappings", linux.gid_mappings())] {
        let pointer = format!("/linux/{field}");
        let list: &[LinuxIdMapping] = list.as_deref().unwrap_or_default();
        match user_namespace {
            None if !list.is_empty() => found.add(&pointer, "needs a user namespace in /linux/namespaces"),
            Some(namespace) if list.is_empty() && namespace.path().is_none() => {
                found.add(&pointer, "a new user namespace needs a mapping");
            }
            _ => {}
        }
        self::list(&pointer, list, found);
    }
    if user_namespace.is_some_and(|namespace| namespace.path().is_none()) {
        unmapped(spec, linux, found);
    }
}

/// One list of mappings, of the container or of a mount.
pub(super) fn list(pointer: &str, list: &[LinuxIdMapping], found: &mut Findings) {
    if list.len() > MOST {
        found.add(pointer, format!("{} mappings, the kernel takes {MOST}", list.len()));
    }
    // Quadratic, over what the kernel would take at all.
    for (index, mapping) in list.iter().enumerate().take(MOST) {
        let fits = |first: u32| first.checked_add(mapping.size() - 1).is_some_and(|last| last != u32::MAX);
        let cause = match mapping.size() {
            0 => "size must not be 0".to_owned(),
            _ if !fits(mapping.container_id()) || !fits(mapping.host_id()) => "exceeds the range of ids".to_owned(),
            _ => match list[..index].iter().position(|earlier| overlap(earlier, mapping)) {
                Some(earlier) => format!("overlaps with {pointer}/{earlier}"),
                None => continue,
            },
        };
        found.add(format!("{pointer}/{index}"), cause);
    }
}

fn overlap(a: &LinuxIdMapping, b: &LinuxIdMapping) -> bool {
    let meet = |first_a: u32, first_b: u32| {
        let end = |first: u32, mapping: &LinuxIdMapping| u64::from(first) + u64::from(mapping.size());
        u64::from(first_a) < end(first_b, b) && u64::from(first_b) < end(first_a, a)
    };
    meet(a.container_id(), b.container_id()) || meet(a.host_id(), b.host_id())
}

/// The ids of the process and of its file systems must be ids of its namespace: setresuid(2) and mount(2) answer EINVAL to
/// others.
fn unmapped(spec: &Spec, linux: &Linux, found: &mut Findings) {
    let maps = |list: &Option<Vec<LinuxIdMapping>>, id: u32| {
        let holds =
            |mapping: &LinuxIdMapping| id.checked_sub(mapping.container_id()).is_some_and(|at| at < mapping.size());
        list.as_ref().is_none_or(|list| list.is_empty() || list.iter().any(holds))
    };
    let mut require = |pointer: String, list: &Option<Vec<LinuxIdMapping>>, name: &str, id: u32| {
        if id != u32::MAX && !maps(list, id) {
            found.add(pointer, format!("{id} is not mapped by /linux/{name}"));
        }
    };
    let (uids, gids) = (("uidMappings", linux.uid_mappings()), ("gidMappings", linux.gid_mappings()));
    if let Some(user) = spec.process().as_ref().map(Process::user) {
        require("/process/user/uid".into(), uids.1, uids.0, user.uid());
        require("/process/user/gid".into(), gids.1, gids.0, user.gid());
        for (index, gid) in user.additional_gids().iter().flatten().enumerate() {
            require(format!("/process/user/additionalGids/{index}"), gids.1, gids.0, *gid);
        }
    }
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        if !matches!(mount.typ().as_deref(), Some("devpts" | "tmpfs")) {
            continue;
        }
        for (at, option) in mount.options().iter().flatten().enumerate() {
            let (of, id) = match option.split_once('=') {
                Some(("uid", id)) => (uids, id),
                Some(("gid", id)) => (gids, id),
                _ => continue,
            };
            if let Ok(id) = id.parse() {
                require(format!("/mounts/{index}/options/{at}"), of.1, of.0, id);
            }
        }
    }
}
