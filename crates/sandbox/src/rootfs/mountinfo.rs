//! `/proc/PID/mountinfo`, proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::sys::mount::{
    MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY,
};

/// The fields of a line that matter.
pub(super) struct Line<'a> {
    pub(super) id: u64,
    pub(super) parent: u64,
    /// Major and minor number, `8:1`.
    pub(super) device: &'a [u8],
    pub(super) root: &'a [u8],
    pub(super) mount_point: &'a [u8],
    /// Of the mount, separated by commas.
    pub(super) options: &'a [u8],
    /// Whether it gets what is mounted on another mount, without giving.
    pub(super) slave: bool,
    pub(super) fstype: &'a [u8],
}

/// All lines, in order.
pub(super) fn lines(mountinfo: &[u8]) -> impl Iterator<Item = Line<'_>> {
    mountinfo.split(|byte| *byte == b'\n').filter_map(Line::parse)
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
        let (id, parent) = (number()?, number()?);
        let (device, root, mount_point, options) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let mut slave = false;
        // Optional fields end with a dash.
        fields.by_ref().inspect(|field| slave |= field.starts_with(b"master:")).find(|field| *field == b"-")?;
        Some(Self { id, parent, device, root, mount_point, options, slave, fstype: fields.next()? })
    }

    /// Those of the mount's `MOUNT_ATTR_*` that take something away from who uses it.
    pub(super) fn restrictions(&self) -> u64 {
        let options = self.options.split(|byte| *byte == b',');
        options.fold(0, |all, option| {
            all | RESTRICTIONS.iter().find(|(name, _)| *name == option).map_or(0, |(_, attr)| *attr)
        })
    }
}

const RESTRICTIONS: [(&[u8], u64); 5] = [
    (b"ro", MOUNT_ATTR_RDONLY),
    (b"nosuid", MOUNT_ATTR_NOSUID),
    (b"nodev", MOUNT_ATTR_NODEV),
    (b"noexec", MOUNT_ATTR_NOEXEC),
    (b"nosymfollow", MOUNT_ATTR_NOSYMFOLLOW),
];

/// Blank, tab, newline and backslash are written as a backslash and three octal digits.
pub(super) fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            rest = &after[3..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}
