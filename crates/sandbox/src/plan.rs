//! Pure: from a configuration to what will be done. No I/O, so that every decision is tested by a table.

pub mod mounts;
pub mod namespaces;
pub mod outline;
pub mod process;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::runtime::{Hook, LinuxDevice, LinuxIdMapping, LinuxIntelRdt, LinuxNamespaceType, LinuxResources, Spec};
use serde::Serialize;
use tare_spec::Bundle;

use crate::container::{CreateOptions, Status};
use crate::net_device::{self, NetDevice};
use crate::seccomp::Filter;
use crate::sys::mount::MOUNT_ATTR_RDONLY;
use crate::{Error, Result};

/// Everything that will be done to make one container.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which namespaces are made and which are joined.
    pub namespaces: namespaces::NamespacePlan,
    /// `linux.uidMappings` and `linux.gidMappings`.
    pub id_mappings: IdMappings,
    /// `linux.timeOffsets`, as `/proc/<pid>/timens_offsets` takes them; empty without.
    pub time_offsets: String,
    /// `root.path`, absolute.
    pub rootfs: PathBuf,
    /// `linux.rootfsPropagation`.
    pub rootfs_propagation: Option<mounts::Propagation>,
    /// `root.readonly`.
    pub read_only_root: bool,
    /// `mounts`, in order.
    pub mounts: Vec<mounts::MountPlan>,
    /// `linux.devices`.
    pub devices: Vec<LinuxDevice>,
    /// `linux.readonlyPaths`.
    pub read_only_paths: Vec<PathBuf>,
    /// `linux.maskedPaths`.
    pub masked_paths: Vec<PathBuf>,
    /// `hostname`.
    pub hostname: Option<String>,
    /// `domainname`.
    pub domainname: Option<String>,
    /// `linux.sysctl`: paths below `/proc`, with values, sorted.
    pub sysctl: BTreeMap<String, String>,
    /// The container's process.
    pub process: process::ProcessPlan,
    /// `linux.netDevices`.
    pub net_devices: Vec<NetDevice>,
    /// `linux.mountLabel`.
    pub mount_label: Option<String>,
    /// `linux.intelRdt`.
    pub intel_rdt: Option<LinuxIntelRdt>,
    /// `linux.resources`.
    pub resources: LinuxResources,
    /// The host's uid of the user who may make cgroups below the container's own; None: root.
    pub cgroup_owner: Option<u32>,
    /// The hooks of each moment.
    pub hooks: HookPlan,
    /// What hooks are told.
    pub hook_state: HookState,
    /// Move the root instead of pivot_root(2).
    pub no_pivot: bool,
    /// The name of the session keyring to make; None keeps the caller's.
    pub keyring: Option<String>,
    /// How many descriptors after stdio the process inherits.
    pub preserve_fds: u32,
}

/// Which ids of the host the ids of a new user namespace are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMappings {
    /// For users.
    pub uid: Vec<LinuxIdMapping>,
    /// For groups.
    pub gid: Vec<LinuxIdMapping>,
}

impl IdMappings {
    /// The host's number of a user; None if it is not mapped.
    pub fn host_uid(&self, uid: u32) -> Option<u32> {
        self.uid.iter().find_map(|mapping| {
            let offset = uid.checked_sub(mapping.container_id()).filter(|offset| *offset < mapping.size())?;
            mapping.host_id().checked_add(offset)
        })
    }
}

/// The hooks of a container, by moment.
#[derive(Debug, Clone, Default)]
pub struct HookPlan {
    /// In the runtime's namespaces, after the container's are made, before pivot_root.
    pub prestart: Vec<Hook>,
    /// As prestart, after it.
    pub create_runtime: Vec<Hook>,
    /// In the container's namespaces, before pivot_root.
    pub create_container: Vec<Hook>,
    /// In the container, before its program.
    pub start_container: Vec<Hook>,
    /// In the runtime's namespaces, when the program runs.
    pub poststart: Vec<Hook>,
    /// In the runtime's namespaces, when the container is deleted.
    pub poststop: Vec<Hook>,
}

impl HookPlan {
    /// Sorts the hooks of the configuration.
    pub fn new(spec: &Spec) -> Self {
        let Some(hooks) = spec.hooks() else { return Self::default() };
        let of = |hooks: &Option<Vec<Hook>>| hooks.clone().unwrap_or_default();
        Self {
            #[allow(deprecated)] // by the specification, and used by many
            prestart: of(hooks.prestart()),
            create_runtime: of(hooks.create_runtime()),
            create_container: of(hooks.create_container()),
            start_container: of(hooks.start_container()),
            poststart: of(hooks.poststart()),
            poststop: of(hooks.poststop()),
        }
    }

    /// Whether stage 2 has to wait for the parent before it goes on: for the parent's hooks, and with its own until the parent has limited
    /// their devices.
    pub fn before_pivot(&self) -> bool {
        !(self.prestart.is_empty() && self.create_runtime.is_empty() && self.create_container.is_empty())
    }
}

/// What a hook is told of the container at any moment.
#[derive(Debug, Clone)]
pub struct HookState {
    /// `ociVersion` of the configuration.
    pub oci_version: String,
    /// The container's name.
    pub id: String,
    /// The bundle directory.
    pub bundle: PathBuf,
    /// The annotations of the configuration. They may be megabytes, and are the record's too.
    pub annotations: Arc<BTreeMap<String, String>>,
}

/// What it is told at one: the state of the specification, without additions.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HookStateAt<'a> {
    oci_version: &'a str,
    id: &'a str,
    status: Status,
    /// As the hook's own pid namespace sees it; 0 and left out when stopped.
    #[serde(skip_serializing_if = "is_zero")]
    pid: i32,
    bundle: &'a Path,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(pid: &i32) -> bool {
    *pid == 0
}

impl HookState {
    /// The JSON for a hook.
    pub fn json(&self, status: Status, pid: i32) -> Vec<u8> {
        serde_json::to_vec(&self.at(status, pid)).unwrap_or_default()
    }

    /// With what is true for the moment.
    pub fn at(&self, status: Status, pid: i32) -> HookStateAt<'_> {
        let Self { oci_version, id, bundle, annotations } = self;
        HookStateAt { oci_version, id, status, pid, bundle, annotations }
    }
}

impl Plan {
    /// Works out what `create` will do. The annotations, which may be megabytes, are taken out of the configuration.
    ///
    /// # Errors
    /// A field that cannot be honoured, by name.
    pub fn new(id: &str, bundle: &mut Bundle, options: &CreateOptions) -> Result<Self> {
        // In a fixed order.
        let annotations = bundle.spec.annotations_mut().take().into_iter().flatten().collect();
        let spec = &bundle.spec;
        let process = spec.process().as_ref().ok_or_else(|| Error::Refused("process: required".into()))?;
        let linux = spec.linux().as_ref().ok_or_else(|| Error::Refused("linux: required".into()))?;
        let namespaces = namespaces::NamespacePlan::new(linux.namespaces().as_deref().unwrap_or_default());
        let paths = |paths: &Option<Vec<String>>| paths.iter().flatten().map(PathBuf::from).collect();
        let rootfs_propagation =
            match linux.rootfs_propagation().as_deref() {
                None | Some("") => None,
                Some(name) => Some(mounts::Propagation::parse(name).ok_or_else(|| {
                    Error::Refused(format!("linux.rootfsPropagation: unknown propagation \"{name}\""))
                })?),
            };
        let id_mappings = IdMappings {
            uid: linux.uid_mappings().clone().unwrap_or_default(),
            gid: linux.gid_mappings().clone().unwrap_or_default(),
        };
        let mut plan = Self {
            time_offsets: time_offsets(spec),
            rootfs: bundle.rootfs.clone(),
            rootfs_propagation,
            read_only_root: spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false),
            mounts: mounts::plan_mounts(spec.mounts().as_deref().unwrap_or_default(), &bundle.dir, &id_mappings)?,
            devices: linux.devices().clone().unwrap_or_default(),
            read_only_paths: paths(linux.readonly_paths()),
            masked_paths: paths(linux.masked_paths()),
            hostname: spec.hostname().clone().filter(|name| !name.is_empty()),
            domainname: spec.domainname().clone().filter(|name| !name.is_empty()),
            sysctl: linux
                .sysctl()
                .iter()
                .flatten()
                .map(|(key, value)| (crate::procfs::sysctl_path(key), value.clone()))
                .collect(),
            process: process::ProcessPlan::new(process, Some(linux), Filter::of(spec)?)?,
            net_devices: net_device::devices(linux),
            mount_label: linux.mount_label().clone().filter(|label| !label.is_empty()),
            intel_rdt: linux.intel_rdt().clone(),
            resources: linux.resources().clone().unwrap_or_default(),
            cgroup_owner: None,
            hooks: HookPlan::new(spec),
            hook_state: HookState {
                oci_version: spec.version().clone(),
                id: id.to_owned(),
                bundle: bundle.dir.clone(),
                annotations: Arc::new(annotations),
            },
            no_pivot: options.no_pivot,
            keyring: (!options.no_new_keyring).then(|| format!("_ses.{id}")),
            preserve_fds: options.preserve_fds,
            id_mappings,
            namespaces,
        };
        if options.listen_fds > 0 {
            plan.process.set_env("LISTEN_FDS", &options.listen_fds.to_string())?;
            // As it sees itself: who listens is init.
            plan.process.set_env("LISTEN_PID", "1")?;
        }
        plan.check()?;
        let cgroup_owner = plan.cgroup_owner(process.user().uid());
        Ok(Self { cgroup_owner, ..plan })
    }

    /// The container's user gets the cgroup if it is the root of a cgroup namespace and mounted writable: as in runc. With
    /// a user namespace the uid is one of the host's; one that is not mapped is refused elsewhere.
    fn cgroup_owner(&self, uid: u32) -> Option<u32> {
        let writable = |mount: &mounts::MountPlan| {
            matches!(mount.kind, mounts::Kind::Cgroup { .. })
                && mount.destination == Path::new("/sys/fs/cgroup")
                && (mount.attrs.set | mount.recursive_attrs.set) & MOUNT_ATTR_RDONLY == 0
        };
        if !self.namespaces.makes(LinuxNamespaceType::Cgroup) || !self.mounts.iter().any(writable) {
            return None;
        }
        let host = if self.namespaces.has(LinuxNamespaceType::User) { self.id_mappings.host_uid(uid)? } else { uid };
        (host != 0).then_some(host)
    }

    /// What holds for a container of a user other than root.
    ///
    /// # Errors
    /// No user namespace: everything else takes privileges.
    pub fn check_for_user(&self) -> Result<()> {
        if self.namespaces.has(LinuxNamespaceType::User) {
            return Ok(());
        }
        let error = Error::Refused("linux.namespaces: rootless container requires user namespaces".into());
        Err(error.hinted("`tare spec --rootless` writes a configuration that has one"))
    }

    fn check(&self) -> Result<()> {
        let makes_user = self.namespaces.makes(LinuxNamespaceType::User);
        if makes_user && (self.id_mappings.uid.is_empty() || self.id_mappings.gid.is_empty()) {
            return Err(Error::Refused(
                "linux.uidMappings, linux.gidMappings: both are required for a new user namespace".into(),
            ));
        }
        if !self.namespaces.has(LinuxNamespaceType::Mount) {
            // The mounts of a read-only root or of masks would be the host's.
            for (given, field) in [
                (!self.masked_paths.is_empty(), "linux.maskedPaths"),
                (!self.read_only_paths.is_empty(), "linux.readonlyPaths"),
                (self.read_only_root, "root.readonly"),
                (self.rootfs_propagation.is_some(), "linux.rootfsPropagation"),
            ] {
                if given {
                    return Err(Error::Refused(format!("{field}: requires a mount namespace")));
                }
            }
        }
        if !self.time_offsets.is_empty() && !self.namespaces.makes(LinuxNamespaceType::Time) {
            return Err(Error::Refused("linux.timeOffsets: require a new time namespace".into()));
        }
        Ok(())
    }
}

/// time_namespaces(7): one line per clock, `<clock> <seconds> <nanoseconds>`.
fn time_offsets(spec: &Spec) -> String {
    let offsets = spec.linux().as_ref().and_then(|linux| linux.time_offsets().as_ref());
    offsets
        .into_iter()
        .flatten()
        .map(|(clock, offset)| format!("{clock} {} {}\n", offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0)))
        .collect()
}
