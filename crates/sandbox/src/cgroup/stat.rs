//! What a container has used.

use serde::Serialize;

use super::dir::Dir;
use crate::Result;

/// The `data` of a `stats` event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stats {}

pub(super) fn v1<'a>(find: impl Fn(&str) -> Option<&'a Dir>) -> Result<Stats> {
    let _ = find("cpu");
    Ok(Stats {})
}

pub(super) fn v2(_: &Dir) -> Result<Stats> {
    Ok(Stats {})
}
