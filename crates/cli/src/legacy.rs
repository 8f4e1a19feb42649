//! What Go's flag parsers allow and clients use, brought to what clap expects: `-no-subreaper`, `--debug=true`,
//! `--memory -1`, and verbs whose flags end at the container's name.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{Arg, ArgAction, Command};

/// Where flags end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Flags may stand anywhere.
    Never,
    /// What follows the first positional argument is passed on as it is.
    AfterFirst,
}

/// Splits what precedes the verb from the verb and its arguments.
///
/// # Errors
/// A flag without its value, in one line.
pub(crate) fn split_at_verb(
    command: &Command,
    arguments: &[OsString],
) -> Result<(Vec<OsString>, Vec<OsString>), String> {
    let mut flags = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.clone().next() {
        if !is_flag(argument) {
            break;
        }
        rest.next();
        flags.extend(flag(command, argument, &mut rest)?);
    }
    Ok((flags, rest.cloned().collect()))
}

/// Rewrites the arguments of a verb.
///
/// # Errors
/// A flag without its value, in one line.
pub(crate) fn normalize(command: &Command, arguments: &[OsString], stop: Stop) -> Result<Vec<OsString>, String> {
    let mut normalized = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            normalized.push("--".into());
            normalized.extend(rest.by_ref().cloned());
        } else if is_flag(argument) {
            normalized.extend(flag(command, argument, &mut rest)?);
        } else {
            if stop == Stop::AfterFirst {
                normalized.push("--".into());
                normalized.push(argument.clone());
                // Habit of other tools: `exec web -- ls`.
                let habit = rest.clone().next().is_some_and(|next| next == "--");
                normalized.extend(rest.by_ref().skip(usize::from(habit)).cloned());
            } else {
                normalized.push(argument.clone());
            }
        }
    }
    Ok(normalized)
}

fn is_flag(argument: &OsStr) -> bool {
    argument.len() > 1 && argument.as_bytes()[0] == b'-'
}

/// One flag in clap's form; takes its value from `rest` if it stands apart. None: a bool that is set to false, a value that is empty.
fn flag<'a>(
    command: &Command,
    argument: &OsStr,
    rest: &mut impl Iterator<Item = &'a OsString>,
) -> Result<Option<OsString>, String> {
    let bytes = argument.as_bytes();
    let name = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-")).unwrap_or(bytes);
    let (name, value) = match name.iter().position(|&byte| byte == b'=') {
        Some(equals) => (&name[..equals], Some(&name[equals + 1..])),
        None => (name, None),
    };
    // Not one of ours: clap has the words for it.
    let Some(known) = std::str::from_utf8(name).ok().and_then(|name| find(command, name)) else {
        let help = matches!(name, b"h" | b"help");
        return Ok(Some(if help { "--help".into() } else { argument.to_owned() }));
    };
    let long = known.get_long().unwrap_or_default();
    if !known.get_action().takes_values() {
        return match value.map(|value| (value, boolean(value))) {
            None | Some((_, Some(true))) => Ok(Some(format!("--{long}").into())),
            Some((_, Some(false))) => Ok(None),
            Some((value, None)) => {
                Err(format!("invalid boolean value {:?} for --{long}", String::from_utf8_lossy(value)))
            }
        };
    }
    let value = match value {
        Some(value) => OsStr::from_bytes(value),
        // The words that podman looks for when it probes for a flag.
        None => rest.next().ok_or_else(|| format!("flag needs an argument: --{long}"))?,
    };
    // For Go's flags an empty word is the same as none, but in a list.
    if value.is_empty() && !matches!(known.get_action(), ArgAction::Append) {
        return Ok(None);
    }
    let mut joined = format!("--{long}=").into_bytes();
    joined.extend_from_slice(value.as_bytes());
    Ok(Some(OsString::from_vec(joined)))
}

fn find<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    command.get_arguments().filter(|known| !known.is_positional()).find(|known| {
        let mut letters = name.chars();
        let letter = letters.next().filter(|_| letters.next().is_none());
        known.get_long() == Some(name) || (letter.is_some() && known.get_short() == letter)
    })
}

/// The words that Go's `strconv.ParseBool` takes.
fn boolean(word: &[u8]) -> Option<bool> {
    match word {
        b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Some(true),
        b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
