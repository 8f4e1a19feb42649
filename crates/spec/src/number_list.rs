//! Lists of CPUs and of memory nodes: cpuset(7), "List format": `0-3,7`.

use std::ops::RangeInclusive;

/// The ranges of a list, in its order. Spaces around numbers are let pass, as the kernel does.
///
/// # Errors
/// What is wrong with it.
pub fn parse(list: &str) -> Result<Vec<RangeInclusive<u32>>, String> {
    list.split(',')
        .map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            match (number(first), number(last)) {
                (Some(first), Some(last)) if first <= last => Ok(first..=last),
                (Some(_), Some(_)) => Err(format!("{:?} runs backwards", part.trim())),
                _ => Err(format!("{list:?} is not a list of numbers and ranges, such as \"0-3,7\"")),
            }
        })
        .collect()
}

fn number(text: &str) -> Option<u32> {
    let text = text.trim();
    // u32's own parser takes a sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_numbers_and_ranges() {
        for (list, ranges) in [
            ("0", vec![0..=0]),
            ("0-3,7", vec![0..=3, 7..=7]),
            (" 1 - 2 , 5", vec![1..=2, 5..=5]),
            ("3-3,0", vec![3..=3, 0..=0]),
            ("4294967295", vec![u32::MAX..=u32::MAX]),
        ] {
            assert_eq!(parse(list), Ok(ranges), "{list}");
        }
        for list in ["", ",", "1,", "a", "-1", "1-", "3-1", "+1", "1-2-3", "0x1", "4294967296", "1;2"] {
            assert!(parse(list).is_err(), "{list:?}");
        }
    }
}
