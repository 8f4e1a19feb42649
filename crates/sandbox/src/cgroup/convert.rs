//! Values of cgroup v1, which the runtime specification speaks, as values of cgroup v2.

use crate::{Error, Result};

/// `cpu.shares` (2..=262144, default 1024) as `cpu.weight` (1..=10000, default 100); 0 is "unset" in both.
///
/// The quadratic that meets all three points, minimum, default and maximum, in logarithms:
/// log10(weight) = (l² + 125 l) / 612 − 7 / 34 with l = log2(shares), rounded up. runc ≥ 1.3.2
/// (opencontainers/runc#4785, opencontainers/cgroups#20), crun ≥ 1.23 (containers/crun#1721) and Kubernetes
/// (kubernetes#131216) use the same; the linear formula before it made 1024 shares a weight of 39.
pub(super) fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0 => 0,
        1 | 2 => 1,
        262_144.. => 10_000,
        // The formula's own value here is 100 up to rounding: pinned, so that no libm can make it 101.
        1024 => 100,
        _ => {
            // Exact: 3..=262143 fits in the 53 bits of a double.
            let l = (shares as f64).log2();
            let weight = 10f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0).ceil();
            // In 1.0..=10000.0 by the match arms above.
            #[allow(clippy::cast_possible_truncation)]
            let weight = weight as u64;
            weight.clamp(1, 10_000)
        }
    }
}

/// `blkio.weight` (10..=1000) as `io.weight` (1..=10000); 0 is "unset" in both. Linear:
/// crun's `1 + (w − 10) · 9999 / 990`, which runc adopted (opencontainers/runc#2786).
pub(super) fn io_weight_of_blkio_weight(weight: u16) -> u64 {
    match weight {
        0 => 0,
        1..=10 => 1,
        _ => (1 + (u64::from(weight) - 10) * 9999 / 990).min(10_000),
    }
}

/// What `memory.swap.max` of v2 becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Swap {
    /// It is not written.
    Unset,
    /// `max`.
    Unlimited,
    /// So many bytes of swap alone.
    Bytes(u64),
}

/// `swap` of the specification counts memory and swap together (`memory.memsw.limit_in_bytes`), v2 counts swap alone:
/// the difference. −1 is unlimited; an unlimited memory without a swap limit makes swap unlimited too, as on v1.
/// `limit` 0 means that it is not known.
///
/// # Errors
/// A swap limit without a memory limit, or below it.
pub(super) fn swap_of_memsw(swap: i64, limit: i64) -> Result<Swap> {
    const FIELD: &str = "linux.resources.memory.swap";
    match (swap, limit) {
        (0, -1) | (-1, _) => Ok(Swap::Unlimited),
        (0, _) => Ok(Swap::Unset),
        (..-1, _) => Err(Error::Refused(format!("{FIELD}: {swap} is neither a number of bytes nor -1"))),
        (_, ..-1) => Err(Error::Refused(format!("linux.resources.memory.limit: {limit} is neither bytes nor -1"))),
        (bytes, -1) => Ok(Swap::Bytes(bytes.unsigned_abs())),
        (_, 0) => Err(Error::Refused(format!("{FIELD}: unable to set a swap limit without a memory limit"))),
        (bytes, limit) if bytes < limit => {
            Err(Error::Refused(format!("{FIELD}: memory+swap limit {bytes} is below the memory limit {limit}")))
        }
        (bytes, limit) => Ok(Swap::Bytes((bytes - limit).unsigned_abs())),
    }
}

/// −1 (and below) is `max`, the rest itself.
pub(super) fn max_or(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "a quarter of a million divisions")]
    fn shares_meet_weight_at_minimum_default_and_maximum_and_never_fall() {
        let table = [(0, 0), (1, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000), (256, 35), (102, 17)];
        for (shares, weight) in table {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
        let weights: Vec<u64> = (2..=262_144).map(weight_of_shares).collect();
        assert!(weights.is_sorted());
        assert!(weights.iter().all(|weight| (1..=10_000).contains(weight)));
    }

    #[test]
    fn blkio_weight_is_spread_over_the_range_of_io_weight() {
        for (blkio, io) in [(0, 0), (1, 1), (10, 1), (100, 910), (500, 4950), (1000, 10_000), (u16::MAX, 10_000)] {
            assert_eq!(io_weight_of_blkio_weight(blkio), io, "{blkio}");
        }
    }

    #[test]
    fn swap_is_what_remains_above_the_memory_limit() {
        assert_eq!(swap_of_memsw(0, 0).unwrap(), Swap::Unset);
        assert_eq!(swap_of_memsw(0, 100).unwrap(), Swap::Unset);
        assert_eq!(swap_of_memsw(0, -1).unwrap(), Swap::Unlimited);
        assert_eq!(swap_of_memsw(-1, 100).unwrap(), Swap::Unlimited);
        assert_eq!(swap_of_memsw(-1, 0).unwrap(), Swap::Unlimited);
        assert_eq!(swap_of_memsw(300, 100).unwrap(), Swap::Bytes(200));
        assert_eq!(swap_of_memsw(100, 100).unwrap(), Swap::Bytes(0));
        assert_eq!(swap_of_memsw(100, -1).unwrap(), Swap::Bytes(100));
        for (swap, limit) in [(100, 0), (99, 100), (-2, 100), (5, -2)] {
            let message = swap_of_memsw(swap, limit).unwrap_err().to_string();
            assert!(message.starts_with("linux.resources.memory."), "{message}");
        }
    }
}
