//! Where one more process enters: the container's cgroup, one below it (`exec --cgroup`), or where init is.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::Pid;

use super::dir::{Dir, tree};
use super::{Cgroup, Directory, Location, host};
use crate::error::CallContext;
use crate::{Error, Result};

/// What `exec --cgroup` asks for, each time `[controller[,controller]:]path`: a path below the container's cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubCgroup {
    /// Not given.
    Unasked,
    /// One path for all hierarchies.
    Everywhere(PathBuf),
    /// One for each controller of v1; the others stay with the container.
    ByController(BTreeMap<String, PathBuf>),
}

/// The way in, open.
#[derive(Debug)]
pub struct Way {
    /// The cgroup2 directory for `clone3(CLONE_INTO_CGROUP)`.
    pub birthplace: Option<OwnedFd>,
    /// The v1 `tasks` files.
    pub entrances: Vec<OwnedFd>,
}

impl SubCgroup {
    /// Takes the words of the command line apart.
    ///
    /// # Errors
    /// A path that climbs, a controller that is empty or named twice, several paths without controllers.
    pub fn parse(words: &[String]) -> Result<Self> {
        let mut by_controller = BTreeMap::new();
        for word in words {
            let refuse = |why: &str| Error::Refused(format!("--cgroup {word:?}: {why}"));
            let Some((controllers, path)) = word.split_once(':') else {
                if words.len() > 1 {
                    return Err(refuse("without a controller it can be given only once"));
                }
                return Ok(Self::Everywhere(below(path_of(word)).ok_or_else(|| refuse("is not a sub cgroup path"))?));
            };
            let path = below(path_of(path)).ok_or_else(|| refuse("is not a sub cgroup path"))?;
            for controller in controllers.split(',') {
                if controller.is_empty() {
                    return Err(refuse("empty controller"));
                }
                if by_controller.insert(controller.to_owned(), path.clone()).is_some() {
                    return Err(refuse(&format!("multiple paths for controller {controller:?}")));
                }
            }
        }
        Ok(if by_controller.is_empty() { Self::Unasked } else { Self::ByController(by_controller) })
    }

    /// The path below the container's directory in one hierarchy; None: the directory itself.
    fn of(&self, directory: &Directory) -> Result<Option<&Path>> {
        match self {
            Self::Unasked => Ok(None),
            Self::Everywhere(path) => Ok(Some(path)),
            Self::ByController(paths) => {
                let mut found: Option<&Path> = None;
                for path in directory.hierarchy.split(',').filter_map(|controller| paths.get(controller)) {
                    if found.is_some_and(|other| other != path) {
                        return Err(Error::Refused(format!(
                            "--cgroup: the controllers {} are in one hierarchy",
                            directory.hierarchy
                        )));
                    }
                    found = Some(path);
                }
                Ok(found)
            }
        }
    }

    /// Refuses controllers that have no directory of their own.
    fn check(&self, location: &Location) -> Result<()> {
        let Self::ByController(paths) = self else { return Ok(()) };
        let mut hierarchies = location.directories.iter().flat_map(|directory| directory.hierarchy.split(','));
        let Some(unknown) = paths.keys().find(|controller| !hierarchies.clone().any(|known| known == *controller))
        else {
            return Ok(());
        };
        Err(Error::Refused(if hierarchies.any(|known| !known.is_empty()) {
            format!("--cgroup: no cgroup v1 hierarchy of the container has controller {unknown:?}")
        } else {
            format!("--cgroup: controller {unknown:?} has no cgroup of its own on cgroup v2: give one path alone")
        }))
    }
}

fn path_of(word: &str) -> &Path {
    Path::new(word)
}

/// The path without slashes in front and dots; None if it climbs.
fn below(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

/// Opens the way into a container's cgroup, or into what `sub` names below it.
///
/// # Errors
/// The open that failed: a cgroup that is asked for must be there.
pub fn open_way(cgroup: &dyn Cgroup, sub: &SubCgroup) -> Result<Way> {
    if *sub == SubCgroup::Unasked {
        return Ok(Way { birthplace: cgroup.clone_target()?, entrances: cgroup.entrances()? });
    }
    let location = cgroup.location();
    sub.check(location)?;
    let hybrid = location.directories.len() > 1;
    let mut way = Way { birthplace: None, entrances: Vec::new() };
    for directory in &location.directories {
        let own = Dir::new(&directory.path);
        let asked = Dir::new(&directory.path.join(sub.of(directory)?.unwrap_or(Path::new(""))));
        if directory.hierarchy.is_empty() {
            let opened = match asked.open_itself() {
                // A container on v1 does not see the cgroup2 beside it, and makes nothing there.
                Err(Errno::ENOENT) if hybrid => own.open_itself().call(|| format!("open({:?})", own.path())),
                opened => opened.call(|| format!("--cgroup: open({:?})", asked.path())),
            };
            way.birthplace = Some(opened?);
        } else {
            let tasks = asked.open("tasks", OFlag::O_WRONLY);
            way.entrances.push(tasks.call(|| format!("--cgroup: open({:?})", asked.path().join("tasks")))?);
        }
    }
    Ok(way)
}

/// The cgroup2 directory that `init` has moved to below the container's own, as systemd and dockerd do. There goes one more
/// process: in the top it would keep init from handing controllers to its children, and may not be once it has ("no internal
/// processes", EBUSY). None if init is in the top, or nowhere below it.
///
/// # Errors
/// The read or the open that failed.
pub fn where_init_is(location: &Location, init: Pid) -> Result<Option<OwnedFd>> {
    let Some(path) = path_of_init(location, init)? else { return Ok(None) };
    match Dir::new(&path).open_itself() {
        Ok(fd) => Ok(Some(fd)),
        // Left and removed since.
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(Error::call(format!("open({path:?})"), errno)),
    }
}

/// Moves `newcomer`, which was born in the container's own cgroup2 directory, after an init that has left it meanwhile: a
/// systemd takes along what it finds there when it leaves, and nothing that comes later.
///
/// # Errors
/// The read or the write that failed.
pub fn follow_init(location: &Location, init: Pid, newcomer: Pid) -> Result<()> {
    match path_of_init(location, init)? {
        Some(path) => Dir::new(&path).write("cgroup.procs", &newcomer.to_string()),
        None => Ok(()),
    }
}

fn path_of_init(location: &Location, init: Pid) -> Result<Option<PathBuf>> {
    let Some(top) = location.directories.iter().find(|directory| directory.hierarchy.is_empty()) else {
        return Ok(None);
    };
    // Where /proc does not show init either, the search does.
    let shown = host::unified_path_of(init).ok().flatten();
    match shown.and_then(|shown| rest_below(&top.path, &shown)) {
        Some(rest) if rest.as_os_str().is_empty() => Ok(None),
        Some(rest) => Ok(Some(top.path.join(rest))),
        None => search_below(&top.path, init),
    }
}

/// What of `shown`, a path in /proc/PID/cgroup, is below `top`, a directory of the mount; None: the names do not tell. That file
/// counts from the root of a cgroup namespace, the mount has its own: in common they have the last names. Whatever comes
/// out is below `top`: init cannot lead us out of what is the container's.
fn rest_below(top: &Path, shown: &Path) -> Option<PathBuf> {
    let inside = shown.strip_prefix("/").ok()?;
    if !inside.components().all(|component| matches!(component, Component::Normal(_))) {
        return None;
    }
    let above = inside.ancestors().find(|path| !path.as_os_str().is_empty() && top.ends_with(path))?;
    inside.strip_prefix(above).map(Path::to_path_buf).ok()
}

/// Looks for init in every cgroup below.
fn search_below(top: &Path, init: Pid) -> Result<Option<PathBuf>> {
    for path in tree(top).call(|| format!("readdir({top:?})"))? {
        if path != top && Dir::new(&path).own_pids()?.contains(&init) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Driver;
    use crate::cgroup::scratch::{Scratch, enter_pure_cgroup2};

    fn parse(words: &[&str]) -> Result<SubCgroup> {
        SubCgroup::parse(&words.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    fn location(hierarchies: &[&str]) -> Location {
        let directory = |hierarchy: &&str| Directory {
            hierarchy: (*hierarchy).to_owned(),
            path: Path::new("/sys/fs/cgroup").join(hierarchy).join("web"),
        };
        let directories = hierarchies.iter().map(directory).collect();
        Location::new(Driver::Cgroupfs, directories)
    }

    #[test]
    fn words_are_paths_with_or_without_controllers() {
        assert_eq!(parse(&[]).unwrap(), SubCgroup::Unasked);
        for (word, path) in [("a/b", "a/b"), ("/a", "a"), ("/", ""), ("", ""), ("./a//b/", "a/b"), ("..a", "..a")] {
            assert_eq!(parse(&[word]).unwrap(), SubCgroup::Everywhere(path.into()), "{word}");
        }
        let paths = [("cpu", "a"), ("memory", "b"), ("pids", "b")].map(|(name, path)| (name.into(), path.into()));
        assert_eq!(parse(&["cpu:a", "memory,pids:/b"]).unwrap(), SubCgroup::ByController(paths.into()));
    }

    #[test]
    fn words_that_climb_or_contradict_are_refused() {
        for words in [
            &["../x"][..],
            &["foo/../../x"],
            &["a/.."],
            &["/.."],
            &["cpu:../x"],
            &["a", "b"],
            &["cpu:a", "b"],
            &["cpu:a", "cpu:b"],
            &["cpu,cpu:a"],
            &[":a"],
            &["cpu,:a"],
        ] {
            let error = parse(words).unwrap_err().to_string();
            assert!(error.starts_with("--cgroup \""), "{words:?}: {error}");
        }
    }

    #[test]
    fn each_hierarchy_has_its_own_path() {
        let v1 = location(&["cpu,cpuacct", "memory", "name=systemd", ""]);
        let sub = parse(&["cpu:a", "name=systemd:b"]).unwrap();
        sub.check(&v1).unwrap();
        let paths: Vec<_> = v1.directories.iter().map(|directory| sub.of(directory).unwrap()).collect();
        assert_eq!(paths, [Some(Path::new("a")), None, Some(Path::new("b")), None]);
        assert!(parse(&["cpu:a", "cpuacct:b"]).unwrap().of(&v1.directories[0]).is_err());
        assert!(parse(&["cpu,cpuacct:a"]).unwrap().of(&v1.directories[0]).is_ok());
        let error = parse(&["nothing:a"]).unwrap().check(&v1).unwrap_err().to_string();
        assert_eq!(error, "--cgroup: no cgroup v1 hierarchy of the container has controller \"nothing\"");
        let error = parse(&["cpu:a"]).unwrap().check(&location(&[""])).unwrap_err().to_string();
        assert!(error.contains("on cgroup v2: give one path alone"), "{error}");
    }

    #[test]
    fn init_is_found_where_it_has_moved() {
        enter_pure_cgroup2();
        let scratch = Scratch::created();
        let init = scratch.sleeper();
        let pid = Pid::from_raw(init.pid());
        assert!(where_init_is(scratch.0.location(), pid).unwrap().is_none(), "it is in the container's cgroup itself");
        let inner = scratch.dir("").join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(inner.join("cgroup.procs"), init.pid().to_string()).unwrap();
        let found = where_init_is(scratch.0.location(), pid).unwrap().unwrap();
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&found));
        assert_eq!(std::fs::read_link(link).unwrap(), inner);
        assert_eq!(search_below(&scratch.dir(""), pid).unwrap(), Some(inner.clone()));
        assert!(where_init_is(scratch.0.location(), Pid::from_raw(1)).unwrap().is_none());
        let newcomer = scratch.sleeper();
        follow_init(scratch.0.location(), pid, Pid::from_raw(newcomer.pid())).unwrap();
        assert_eq!(Dir::new(&inner).own_pids().unwrap().len(), 2);
    }

    #[test]
    fn what_init_has_of_names_below_the_containers_directory() {
        let rest = |top: &str, shown: &str| rest_below(Path::new(top), Path::new(shown));
        let some = |path: &str| Some(PathBuf::from(path));
        assert_eq!(rest("/sys/fs/cgroup/a/web", "/a/web"), some(""));
        assert_eq!(rest("/sys/fs/cgroup/a/web", "/a/web/init.scope"), some("init.scope"));
        assert_eq!(rest("/sys/fs/cgroup/a/web", "/a/web/a/web"), some("a/web"));
        // Counted from the root of a cgroup namespace.
        assert_eq!(rest("/sys/fs/cgroup/a/web", "/web/init.scope"), some("init.scope"));
        // Outside, above, and below another mount's root.
        for shown in ["/", "", "/init.scope", "/a", "/../web/x", "/web/../../x", "/docker/1f/a/web/init.scope"] {
            assert_eq!(rest("/sys/fs/cgroup/a/web", shown), None, "{shown}");
        }
    }
}
