//! Names that lie in the table itself: a `&str` in a static is a pointer, which every start of the program would have to relocate.

/// The longest name of a system call has 28 letters.
const LONGEST: usize = 28;

/// A name, filled up with zeros: so it sorts as its text does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name([u8; LONGEST]);

/// The name of a system call, for a table: longer ones do not compile.
pub(super) const fn name(text: &str) -> Name {
    let mut letters = [0; LONGEST];
    let mut at = 0;
    while at < text.len() {
        letters[at] = text.as_bytes()[at];
        at += 1;
    }
    Name(letters)
}

impl Name {
    /// The name that somebody wrote, if it can be one at all.
    pub(super) fn of(text: &str) -> Option<Self> {
        (text.len() <= LONGEST && !text.contains('\0')).then(|| name(text))
    }
}

#[cfg(test)]
impl Name {
    /// Its text.
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap().trim_end_matches('\0')
    }
}
