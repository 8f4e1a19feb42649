//! `/proc/PID/mountinfo`, proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

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
        // Optional fields end with a dash.
        fields.by_ref().find(|field| *field == b"-")?;
        Some(Self { id, parent, device, root, mount_point, options, fstype: fields.next()? })
    }

    /// Whether the mount itself is read-only.
    pub(super) fn is_read_only(&self) -> bool {
        self.options.split(|byte| *byte == b',').any(|option| option == b"ro")
    }
}

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
