//! /etc/subuid and /etc/subgid, subuid(5): which ids of the host a user may map.

use oci_spec::runtime::LinuxIdMapping;

/// Ids of the host: the first, and how many. 64 bits, as a line may reach beyond the last id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Range {
    pub(super) first: u64,
    pub(super) count: u64,
}

impl Range {
    fn end(self) -> u64 {
        self.first + self.count
    }
}

/// The ranges of one user: lines `NAME:FIRST:COUNT`, whose name may be the number of the user instead.
pub(super) fn ranges_of(text: &str, name: &str, uid: u32) -> Vec<Range> {
    let number = uid.to_string();
    let parse = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let (first, count) = (fields.next()?.parse::<u32>().ok()?, fields.next()?.parse::<u32>().ok()?);
        (owner == number || (owner == name && !name.is_empty()))
            .then(|| Range { first: first.into(), count: count.into() })
    };
    text.lines().filter_map(parse).collect()
}

/// The first range of a map that a user may not map: it is neither the user's own id nor within what `granted` says.
pub(super) fn missing(mappings: &[LinuxIdMapping], own: u32, granted: &[Range]) -> Option<Range> {
    let mut granted = granted.to_vec();
    granted.sort_unstable();
    mappings.iter().find_map(|mapping| {
        let wanted = Range { first: mapping.host_id().into(), count: mapping.size().into() };
        if wanted == (Range { first: own.into(), count: 1 }) {
            return None;
        }
        // newuidmap lets a range run on from one line into the next.
        let mut reached = wanted.first;
        for range in granted.iter().filter(|range| range.end() > wanted.first) {
            if range.first > reached {
                break;
            }
            reached = reached.max(range.end());
        }
        (reached < wanted.end()).then_some(wanted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxIdMappingBuilder;

    fn map(entries: &[(u32, u32)]) -> Vec<LinuxIdMapping> {
        let entry = |(host, size): &(u32, u32)| {
            LinuxIdMappingBuilder::default().container_id(0u32).host_id(*host).size(*size).build().unwrap()
        };
        entries.iter().map(entry).collect()
    }

    #[test]
    fn lines_go_by_name_or_number_and_what_is_no_line_is_passed_over() {
        let text = "ann:100000:65536\n# bob:1:2\n\nbob:200000:10\n1001:300000:5\nbob:x:1\nbob:1\nanna:7:7\n";
        let range = |first, count| Range { first, count };
        assert_eq!(ranges_of(text, "ann", 1000), [range(100_000, 65_536)]);
        assert_eq!(ranges_of(text, "bob", 1001), [range(200_000, 10), range(300_000, 5)]);
        assert_eq!(ranges_of(text, "", 1002), []);
    }

    #[test]
    fn a_range_that_is_not_granted_is_found() {
        let granted = [Range { first: 110, count: 5 }, Range { first: 100, count: 10 }];
        assert_eq!(missing(&map(&[(1000, 1), (100, 15)]), 1000, &granted), None);
        assert_eq!(missing(&map(&[(1000, 1), (105, 5)]), 1000, &granted), None);
        assert_eq!(missing(&map(&[(1000, 2)]), 1000, &granted), Some(Range { first: 1000, count: 2 }));
        assert_eq!(missing(&map(&[(100, 16)]), 1000, &granted), Some(Range { first: 100, count: 16 }));
        assert_eq!(missing(&map(&[(99, 2)]), 1000, &granted), Some(Range { first: 99, count: 2 }));
        assert_eq!(missing(&map(&[(0, 1)]), 1000, &[]), Some(Range { first: 0, count: 1 }));
        let whole = Range { first: u64::from(u32::MAX), count: u64::from(u32::MAX) };
        assert_eq!(missing(&map(&[(u32::MAX, u32::MAX)]), 1000, &[whole]), None);
    }
}
