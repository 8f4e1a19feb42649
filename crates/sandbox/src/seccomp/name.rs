//! Names that lie in the table itself: a `&str` in a static is a pointer, which every start of the program would have to relocate.

/// Two u128; the longest name of a system call has 28 letters.
const LONGEST: usize = 32;

/// A name, filled up with zeros, as two big-endian numbers: so it sorts as its text does, in one comparison or two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name(u128, u128);

/// The name of a system call, for a table: longer ones do not compile.
pub(super) const fn name(text: &str) -> Name {
    let mut letters = [0; LONGEST];
    let (taken, _) = letters.split_at_mut(text.len());
    taken.copy_from_slice(text.as_bytes());
    let [first, second] = *letters.as_chunks().0 else { panic!() };
    Name(u128::from_be_bytes(first), u128::from_be_bytes(second))
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
    pub(super) fn text(&self) -> String {
        let letters = [self.0, self.1].into_iter().flat_map(u128::to_be_bytes).take_while(|letter| *letter != 0);
        letters.map(char::from).collect()
    }
}
