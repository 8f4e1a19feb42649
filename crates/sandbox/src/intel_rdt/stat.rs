//! What resctrl says of a container: the `intel_rdt` of a `stats` event, in the shape of `runc events`.

use std::fs;
use std::path::Path;

use nix::errno::Errno;
use serde::Serialize;

use super::Groups;
use crate::Result;
use crate::error::{CallContext, Context};

/// Limits and counts. What the hardware lacks is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// What the L3 cache can be asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_info: Option<L3CacheInfo>,
    /// The line `L3:` of the root's schemata.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema_root: String,
    /// The same of the container's class.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema: String,
    /// What the memory bandwidth can be asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_info: Option<MemBwInfo>,
    /// The line `MB:` of the root's schemata.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema_root: String,
    /// The same of the container's class.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema: String,
    /// All lines of the schemata of the container's class.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schemata: Vec<String>,
    /// Memory bandwidth, an entry for each L3 cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mbm_stats: Option<Vec<Bandwidth>>,
    /// Cache occupancy, an entry for each L3 cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmt_stats: Option<Vec<Occupancy>>,
}

/// `info/L3`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct L3CacheInfo {
    /// The bits of the whole cache, hexadecimal.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cbm_mask: String,
    /// The fewest bits of a class.
    #[serde(skip_serializing_if = "zero")]
    pub min_cbm_bits: u64,
    /// How many classes there can be.
    #[serde(skip_serializing_if = "zero")]
    pub num_closids: u64,
}

/// `info/MB`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MemBwInfo {
    /// The step, in percent.
    #[serde(skip_serializing_if = "zero")]
    pub bandwidth_gran: u64,
    /// Whether the delay is linear.
    #[serde(skip_serializing_if = "zero")]
    pub delay_linear: u64,
    /// The least, in percent.
    #[serde(skip_serializing_if = "zero")]
    pub min_bandwidth: u64,
    /// How many classes there can be.
    #[serde(skip_serializing_if = "zero")]
    pub num_closids: u64,
}

/// Bytes since the group was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Bandwidth {
    /// All.
    #[serde(skip_serializing_if = "zero")]
    pub mbm_total_bytes: u64,
    /// Those of the cache's own node.
    #[serde(skip_serializing_if = "zero")]
    pub mbm_local_bytes: u64,
}

/// Bytes now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Occupancy {
    /// In the cache.
    #[serde(skip_serializing_if = "zero")]
    pub llc_occupancy: u64,
}

/// As runc, which leaves zeroes out.
fn zero(value: &u64) -> bool {
    *value == 0
}

impl Groups {
    /// What the groups allow and count.
    ///
    /// # Errors
    /// The read that failed.
    pub fn stats(&self) -> Result<Stats> {
        self.read_stats().during(|| "linux.intelRdt")
    }

    fn read_stats(&self) -> Result<Stats> {
        let schemata = |group: &Path| Ok::<_, crate::Error>(optional(&group.join("schemata"))?.unwrap_or_default());
        let (root, own) = (schemata(&self.root)?, schemata(&self.class)?);
        let mut stats = Stats {
            schemata: own.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect(),
            ..Stats::default()
        };
        let info = self.root.join("info");
        let (l3, mb) = (info.join("L3"), info.join("MB"));
        if l3.is_dir() {
            stats.l3_cache_info = Some(L3CacheInfo {
                cbm_mask: optional(&l3.join("cbm_mask"))?.unwrap_or_default().trim().to_owned(),
                min_cbm_bits: number(&l3.join("min_cbm_bits"))?,
                num_closids: number(&l3.join("num_closids"))?,
            });
            stats.l3_cache_schema_root = line(&root, "L3");
            stats.l3_cache_schema = line(&own, "L3");
        }
        if mb.is_dir() {
            stats.mem_bw_info = Some(MemBwInfo {
                bandwidth_gran: number(&mb.join("bandwidth_gran"))?,
                delay_linear: number(&mb.join("delay_linear"))?,
                min_bandwidth: number(&mb.join("min_bandwidth"))?,
                num_closids: number(&mb.join("num_closids"))?,
            });
            stats.mem_bw_schema_root = line(&root, "MB");
            stats.mem_bw_schema = line(&own, "MB");
        }
        let features = optional(&info.join("L3_MON/mon_features"))?.unwrap_or_default();
        self.add_counts(&mut stats, &features)?;
        Ok(stats)
    }

    /// Reads `mon_data` of the monitoring group, or else of the class.
    fn add_counts(&self, stats: &mut Stats, features: &str) -> Result<()> {
        let has = |feature: &str| features.lines().any(|line| line == feature);
        let bandwidth = has("mbm_total_bytes") || has("mbm_local_bytes");
        let occupancy = has("llc_occupancy");
        if !bandwidth && !occupancy {
            return Ok(());
        }
        let group = self.monitoring.as_ref().unwrap_or(&self.class);
        let directory = group.join("mon_data");
        let entries = fs::read_dir(&directory).call(|| format!("readdir({directory:?})"))?;
        let mut domains: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        // mon_L3_00, mon_L3_01: by the number of the cache.
        domains.sort_unstable();
        let (mut mbm, mut cmt) = (Vec::new(), Vec::new());
        for domain in domains {
            mbm.push(Bandwidth {
                mbm_total_bytes: number(&domain.join("mbm_total_bytes"))?,
                mbm_local_bytes: number(&domain.join("mbm_local_bytes"))?,
            });
            cmt.push(Occupancy { llc_occupancy: number(&domain.join("llc_occupancy"))? });
        }
        stats.mbm_stats = bandwidth.then_some(mbm);
        stats.cmt_stats = occupancy.then_some(cmt);
        Ok(())
    }
}

/// A file's text; None if this hardware or kernel does not have it.
fn optional(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(None),
        Err(error) => Err(error).call(|| format!("read({path:?})")),
    }
}

/// A file of one number; a count that is `Unavailable`, or a file that is not there, is 0.
fn number(path: &Path) -> Result<u64> {
    Ok(optional(path)?.and_then(|text| text.trim().parse().ok()).unwrap_or(0))
}

/// The line of one resource, without the blanks that the kernel puts before it.
fn line(schemata: &str, resource: &str) -> String {
    let of_resource = |line: &&str| line.strip_prefix(resource).is_some_and(|rest| rest.starts_with(':'));
    schemata.lines().map(str::trim).find(of_resource).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::tests::Fake;
    use super::*;

    #[test]
    fn the_groups_tell_what_they_allow_and_count() {
        let fake = Fake::new("stats");
        let class = fake.class("gold", "    MB:0= 20;1=100\n    L3:0=0ff;1=7ff\n");
        let write = |path: &str, text: &str| {
            let path = fake.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let groups = fake.groups(r#"{"closID": "gold", "enableMonitoring": true}"#);
        assert_eq!(
            serde_json::to_value(groups.stats().unwrap()).unwrap(),
            serde_json::json!({"schemata": ["MB:0= 20;1=100", "L3:0=0ff;1=7ff"]}),
            "hardware without any of it"
        );
        write("schemata", "MB:0=100;1=100\nL3:0=7ff;1=7ff\n");
        write("info/L3/cbm_mask", "7ff\n");
        write("info/L3/min_cbm_bits", "1\n");
        write("info/L3/num_closids", "16\n");
        write("info/MB/bandwidth_gran", "10\n");
        write("info/MB/delay_linear", "1\n");
        write("info/MB/min_bandwidth", "10\n");
        write("info/MB/num_closids", "8\n");
        write("info/L3_MON/mon_features", "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes\n");
        let monitoring = class.join("mon_groups").join("web/mon_data");
        for (domain, occupancy) in [("mon_L3_01", "Unavailable\n"), ("mon_L3_00", "4096\n")] {
            let directory = monitoring.join(domain);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("llc_occupancy"), occupancy).unwrap();
            fs::write(directory.join("mbm_total_bytes"), "77\n").unwrap();
            fs::write(directory.join("mbm_local_bytes"), "7\n").unwrap();
        }
        assert_eq!(
            serde_json::to_value(groups.stats().unwrap()).unwrap(),
            serde_json::json!({
                "l3_cache_info": {"cbm_mask": "7ff", "min_cbm_bits": 1, "num_closids": 16},
                "l3_cache_schema_root": "L3:0=7ff;1=7ff",
                "l3_cache_schema": "L3:0=0ff;1=7ff",
                "mem_bw_info": {"bandwidth_gran": 10, "delay_linear": 1, "min_bandwidth": 10, "num_closids": 8},
                "mem_bw_schema_root": "MB:0=100;1=100",
                "mem_bw_schema": "MB:0= 20;1=100",
                "schemata": ["MB:0= 20;1=100", "L3:0=0ff;1=7ff"],
                "mbm_stats": [
                    {"mbm_total_bytes": 77, "mbm_local_bytes": 7}, {"mbm_total_bytes": 77, "mbm_local_bytes": 7},
                ],
                "cmt_stats": [{"llc_occupancy": 4096}, {}],
            })
        );
    }
}
