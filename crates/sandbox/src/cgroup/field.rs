//! What the fields of `linux.resources` mean, on either version.

use oci_spec::runtime::{LinuxHugepageLimit, LinuxMemory, LinuxRdma};

use crate::{Error, Result};

/// A number that asks for something: runc's and so everybody's 0 is "unset".
pub(super) fn asked<T: Default + PartialEq>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

/// A text that asks for something.
pub(super) fn given(value: Option<&str>) -> Option<&str> {
    value.filter(|value| !value.is_empty())
}

/// `pids.limit`: below 0 is unlimited. 0 is a limit like any other (runc ≥ 1.4), but `pids.max` 0 would keep even init
/// from being made: 1, the process that is there.
pub(super) fn pids_max(limit: i64) -> i64 {
    if limit == 0 { 1 } else { limit.max(-1) }
}

/// The page size of a file name, `2MB`: the name of a file is made from it.
pub(super) fn page_size(limit: &LinuxHugepageLimit) -> Result<&str> {
    let size = limit.page_size().as_str();
    if !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(size);
    }
    Err(Error::Refused(format!("linux.resources.hugepageLimits: {size:?} is not a page size")))
}

/// One line for `rdma.max`: the same file on both versions. None if it limits nothing.
pub(super) fn rdma_line(device: &str, limit: LinuxRdma) -> Option<String> {
    let mut line = device.to_owned();
    for (key, value) in [("hca_handle", limit.hca_handles()), ("hca_object", limit.hca_objects())] {
        if let Some(value) = value {
            line.push_str(&format!(" {key}={value}"));
        }
    }
    (line.len() > device.len()).then_some(line)
}

/// Kernel memory has no limit of its own any more (kernel ≥ 5.16 answers EOPNOTSUPP, runc ignores it since 1.0).
pub(super) fn warn_kernel_memory(memory: &LinuxMemory) {
    #[allow(deprecated)]
    let kernel = memory.kernel();
    if asked(kernel).is_some() || asked(memory.kernel_tcp()).is_some() {
        tracing::warn!("linux.resources.memory.kernel and kernelTCP are ignored: the kernel has dropped them");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_empty_ask_for_nothing() {
        assert_eq!(asked(Some(0u64)), None);
        assert_eq!(asked(Some(-1i64)), Some(-1));
        assert_eq!(given(Some("")), None);
        assert_eq!(given(Some("0-1")), Some("0-1"));
    }

    #[test]
    fn a_pids_limit_of_zero_leaves_init_alone() {
        for (limit, max) in [(0, 1), (1, 1), (100, 100), (-1, -1), (-7, -1)] {
            assert_eq!(pids_max(limit), max);
        }
    }

    #[test]
    fn a_page_size_is_no_path() {
        let mut limit = LinuxHugepageLimit::default();
        for (size, good) in [("2MB", true), ("64KB", true), ("", false), ("../x", false), ("2MB/", false)] {
            limit.set_page_size(size.into());
            assert_eq!(page_size(&limit).is_ok(), good, "{size}");
        }
    }

    #[test]
    fn an_rdma_line_has_only_what_is_limited() {
        for (json, line) in [
            ("{}", None),
            (r#"{"hcaObjects": 10}"#, Some("mlx5_1 hca_object=10")),
            (r#"{"hcaObjects": 10, "hcaHandles": 3}"#, Some("mlx5_1 hca_handle=3 hca_object=10")),
        ] {
            assert_eq!(rdma_line("mlx5_1", serde_json::from_str(json).unwrap()).as_deref(), line);
        }
    }
}
