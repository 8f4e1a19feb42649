//! `update`.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxIntelRdt, LinuxResources};
use serde_json::Value;

use super::{Runtime, Status};
use crate::cgroup::{self, Cgroup};
use crate::deadline::TO_CHANGE;
use crate::error::Context;
use crate::intel_rdt::{self, Groups};
use crate::store::{Entry, Record, Updating};
use crate::{Error, Result};

/// What an update changes; what it does not name stays.
#[derive(Debug, Clone, Default)]
pub struct Update {
    /// The limits.
    pub resources: LinuxResources,
    /// `linux.intelRdt.l3CacheSchema`.
    pub l3_cache_schema: Option<String>,
    /// `linux.intelRdt.memBwSchema`.
    pub mem_bw_schema: Option<String>,
}

impl Runtime {
    /// Changes the limits that `update` names; the others stay. What cannot be changed as a whole is not changed at all,
    /// as far as the kernel lets a limit be put back.
    ///
    /// # Errors
    /// [`Error::NotRunning`]; the write that failed.
    pub fn update(&self, id: &str, update: &Update) -> Result<()> {
        let deadline = self.deadline(TO_CHANGE);
        let (entry, mut record) = self.find(id)?;
        let cgroup = cgroup::open(&record.cgroup);
        if let Status::Stopped | Status::Creating = super::inspect::status(&entry, cgroup.as_ref())? {
            return Err(Error::NotRunning);
        }
        let updating = entry.updating(deadline)?;
        let earlier = entry.updates()?;
        let mut resources = update.resources.clone();
        if let Some(rules) = resources.devices()
            && *rules == devices_in_force(&entry, earlier.as_ref())?
        {
            // Clients send the whole configuration again. These rules hold, and what a hook has added to them, a GPU say,
            // is to stay.
            resources.set_devices(None);
        }
        // First, since they can be taken back: the limits take themselves back.
        let schemata = Schemata::change(&entry, &updating, &mut record, cgroup.as_ref(), update)?;
        cgroup.update(&resources, deadline).or_else(|error| schemata.restore(error))?;
        updating.write(&merge(earlier.as_ref(), &update.resources)?)
    }
}

/// The device rules that create and the updates since have set.
fn devices_in_force(entry: &Entry, earlier: Option<&LinuxResources>) -> Result<Vec<LinuxDeviceCgroup>> {
    if let Some(rules) = earlier.and_then(|earlier| earlier.devices().clone()) {
        return Ok(rules);
    }
    let spec = entry.spec()?;
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    Ok(resources.and_then(|resources| resources.devices().clone()).unwrap_or_default())
}

/// Cache and bandwidth, as they were.
struct Schemata(Option<(Groups, String)>);

impl Schemata {
    /// Writes what `update` says of them. A container without a class of service gets one, as runc does it, with all its
    /// processes inside.
    fn change(
        entry: &Entry,
        updating: &Updating<'_>,
        record: &mut Record,
        cgroup: &dyn Cgroup,
        update: &Update,
    ) -> Result<Self> {
        let lines: Vec<String> = update.l3_cache_schema.iter().chain(&update.mem_bw_schema).cloned().collect();
        if lines.is_empty() {
            return Ok(Self(None));
        }
        let spec = entry.spec()?;
        let configured = spec.linux().as_ref().and_then(|linux| linux.intel_rdt().clone());
        let mut rdt = configured.clone().unwrap_or_default();
        if configured.is_some() || !record.resctrl.is_empty() {
            let groups = intel_rdt::locate(&rdt, &record.id)?;
            let before = groups.rewrite(&lines).during(|| "linux.intelRdt")?;
            return Ok(Self(Some((groups, before))));
        }
        rdt = LinuxIntelRdt::default();
        rdt.set_l3_cache_schema(update.l3_cache_schema.clone());
        rdt.set_mem_bw_schema(update.mem_bw_schema.clone());
        let groups = intel_rdt::locate(&rdt, &record.id)?;
        record.resctrl = groups.to_remove();
        updating.write_record(record)?;
        groups.create()?;
        groups.take_in(&cgroup.pids()?)?;
        Ok(Self(None))
    }

    /// Writes them again after `error`.
    fn restore(self, error: Error) -> Result<()> {
        let Some((groups, before)) = self.0 else { return Err(error) };
        match groups.rewrite(&[before]) {
            Ok(_) => Err(error),
            Err(_) => Err(error).during(|| "not put back: schemata"),
        }
    }
}

/// What `earlier` updates and this one have asked for together.
fn merge(earlier: Option<&LinuxResources>, update: &LinuxResources) -> Result<LinuxResources> {
    let value = |resources: &LinuxResources| {
        serde_json::to_value(resources).map_err(|error| Error::Refused(format!("updates: {error}")))
    };
    let mut all = earlier.map(value).transpose()?.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    overlay(&mut all, value(update)?, "");
    serde_json::from_value(all).map_err(|error| Error::Refused(format!("updates: {error}")))
}

/// Puts `update` over `all`. `path` is where they are: `/memory/limit`.
fn overlay(all: &mut Value, update: Value, path: &str) {
    match (all, update) {
        (Value::Object(all), Value::Object(update)) => {
            for (key, value) in update {
                let path = format!("{path}/{key}");
                if !asks_for_nothing(&path, &value) {
                    let empty = if value.is_object() { Value::Object(serde_json::Map::new()) } else { Value::Null };
                    overlay(all.entry(key).or_insert(empty), value, &path);
                }
            }
        }
        // One entry for each device, page size or interface; the rules on devices are one list that holds as a whole.
        (Value::Array(all), Value::Array(update)) if path != "/devices" => {
            const KEYS: [&str; 4] = ["major", "minor", "pageSize", "name"];
            for value in update {
                match all.iter_mut().find(|there| KEYS.iter().all(|key| there.get(key) == value.get(key))) {
                    Some(there) => overlay(there, value, path),
                    None => all.push(value),
                }
            }
        }
        (all, update) => *all = update,
    }
}

/// Nulls, empty words, and zeros where zero is no limit.
fn asks_for_nothing(path: &str, value: &Value) -> bool {
    const ZERO_IS_A_VALUE: [&str; 5] =
        ["/pids/limit", "/cpu/burst", "/cpu/idle", "/memory/swappiness", "/hugepageLimits/limit"];
    match value {
        Value::Null => true,
        Value::String(word) => word.is_empty(),
        Value::Number(number) => {
            let zero = number.as_i64() == Some(0);
            zero && !ZERO_IS_A_VALUE.contains(&path) && !path.contains("/throttle") && !path.starts_with("/rdma/")
        }
        // A question about one update alone.
        _ => path == "/memory/checkBeforeUpdate",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(earlier: Value, update: Value) -> Value {
        let resources = |value| serde_json::from_value::<LinuxResources>(value).unwrap();
        let all = merge(Some(&resources(earlier)), &resources(update)).unwrap();
        let all_text = serde_json::to_vec(&all).unwrap();
        // What is written is read again.
        let read = tare_spec::decode::resources(std::path::Path::new("updates.json"), &all_text).unwrap();
        assert_eq!(read, all);
        serde_json::to_value(all).unwrap()
    }

    #[test]
    fn the_latest_word_on_each_field_is_kept() {
        let earlier = json!({"memory": {"limit": 5, "swap": 9}, "cpu": {"shares": 3, "cpus": "0", "burst": 7}});
        let update = json!({"memory": {"limit": 6, "checkBeforeUpdate": true}, "pids": {"limit": 0},
            "cpu": {"shares": 0, "cpus": "", "burst": 0}});
        let expected = json!({"memory": {"limit": 6, "swap": 9}, "pids": {"limit": 0},
            "cpu": {"shares": 3, "cpus": "0", "burst": 0}});
        assert_eq!(merged(earlier, update), expected);
    }

    #[test]
    fn lists_are_merged_by_device_and_rules_on_devices_are_replaced() {
        let throttle = |minor: i64, rate: u64| json!({"major": 8, "minor": minor, "rate": rate});
        let rule = |major: i64| json!({"allow": true, "type": "c", "major": major, "minor": 1, "access": "r"});
        let earlier = json!({
            "blockIO": {"throttleReadBpsDevice": [throttle(0, 5), throttle(1, 6)]},
            "devices": [rule(1)],
            "hugepageLimits": [{"pageSize": "2MB", "limit": 5}],
            "unified": {"memory.high": "5"}});
        let update = json!({
            "blockIO": {"throttleReadBpsDevice": [throttle(1, 0), throttle(2, 7)]},
            "devices": [rule(2)],
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
            "unified": {"memory.low": "6"}});
        let expected = json!({
            "blockIO": {"throttleReadBpsDevice": [throttle(0, 5), throttle(1, 0), throttle(2, 7)]},
            "devices": [rule(2)],
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
            "unified": {"memory.high": "5", "memory.low": "6"}});
        assert_eq!(merged(earlier, update), expected);
    }
}
