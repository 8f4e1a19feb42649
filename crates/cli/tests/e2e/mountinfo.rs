//! /proc/self/mountinfo, as a container shows it.

use tare_testkit::{Bundle, Runtime};

/// One mount.
#[derive(Debug, Clone)]
pub(crate) struct Mount {
    pub(crate) root: String,
    pub(crate) point: String,
    pub(crate) options: Vec<String>,
    pub(crate) propagation: Vec<String>,
    pub(crate) kind: String,
    pub(crate) super_options: Vec<String>,
}

impl Mount {
    pub(crate) fn has(&self, option: &str) -> bool {
        self.options.iter().chain(&self.super_options).any(|known| known == option)
    }
}

/// Parses the lines.
pub(crate) fn parse(text: &str) -> Vec<Mount> {
    let list = |field: &str| field.split(',').map(str::to_owned).collect::<Vec<_>>();
    let line = |line: &str| {
        let (front, back) = line.split_once(" - ")?;
        let front: Vec<_> = front.split(' ').collect();
        let back: Vec<_> = back.split(' ').collect();
        Some(Mount {
            root: front[3].to_owned(),
            point: front[4].to_owned(),
            options: list(front[5]),
            propagation: front[6..].iter().map(|&tag| tag.to_owned()).collect(),
            kind: back[0].to_owned(),
            super_options: list(back.get(2)?),
        })
    };
    text.lines().filter_map(line).collect()
}

/// The mounts that a bundle's process sees.
#[track_caller]
pub(crate) fn inside(runtime: &Runtime, bundle: Bundle) -> Vec<Mount> {
    parse(&runtime.run(&bundle.args(["cat", "/proc/self/mountinfo"])).ok().stdout)
}

/// The uppermost mount on a path.
#[track_caller]
pub(crate) fn at<'a>(mounts: &'a [Mount], point: &str) -> &'a Mount {
    mounts.iter().rfind(|mount| mount.point == point).unwrap_or_else(|| panic!("no mount on {point}: {mounts:#?}"))
}
