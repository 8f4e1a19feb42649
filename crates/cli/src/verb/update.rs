//! `update`.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};
use tare_sandbox::container;

use crate::args::Update;
use crate::report::cause;
use crate::size;

impl Update {
    /// What the flags, or the file that they name, ask for.
    ///
    /// # Errors
    /// One line that names the flag.
    pub(super) fn change(&self) -> Result<container::Update, String> {
        // Words are asked for by not being empty, as runc takes these flags.
        let schema = |schema: &Option<String>| schema.clone().filter(|schema| !schema.is_empty());
        Ok(container::Update {
            resources: self.limits()?,
            l3_cache_schema: schema(&self.l3_cache_schema),
            mem_bw_schema: schema(&self.mem_bw_schema),
        })
    }

    fn limits(&self) -> Result<LinuxResources, String> {
        let mut resources = match &self.resources {
            Some(path) => read(path)?,
            None => self.flags()?,
        };
        // "No memory limit" means swap too, unless that is spoken of: v1 would refuse a limit of both below the first.
        if let Some(memory) = resources.memory().filter(|memory| memory.limit() == Some(-1) && memory.swap().is_none())
        {
            let mut memory = memory;
            memory.set_swap(Some(-1));
            resources.set_memory(Some(memory));
        }
        Ok(resources)
    }

    fn flags(&self) -> Result<LinuxResources, String> {
        for (flag, value) in [("kernel-memory", &self.kernel_memory), ("kernel-memory-tcp", &self.kernel_memory_tcp)] {
            if value.is_some() {
                tracing::warn!("update: --{flag} is ignored: the kernel has dropped that limit");
            }
        }
        let mut memory = LinuxMemory::default();
        memory.set_limit(bytes("memory", self.memory.as_deref())?);
        memory.set_reservation(bytes("memory-reservation", self.memory_reservation.as_deref())?);
        memory.set_swap(bytes("memory-swap", self.memory_swap.as_deref())?);

        let mut cpu = LinuxCpu::default();
        cpu.set_shares(number("cpu-share", self.cpu_share.as_deref())?);
        cpu.set_quota(number("cpu-quota", self.cpu_quota.as_deref())?);
        cpu.set_period(number("cpu-period", self.cpu_period.as_deref())?);
        cpu.set_burst(number("cpu-burst", self.cpu_burst.as_deref())?);
        cpu.set_idle(number("cpu-idle", self.cpu_idle.as_deref())?);
        cpu.set_realtime_runtime(number("cpu-rt-runtime", self.cpu_rt_runtime.as_deref())?);
        cpu.set_realtime_period(number("cpu-rt-period", self.cpu_rt_period.as_deref())?);
        cpu.set_cpus(self.cpuset_cpus.clone());
        cpu.set_mems(self.cpuset_mems.clone());

        let mut resources = LinuxResources::default();
        resources.set_memory(Some(memory).filter(|memory| *memory != LinuxMemory::default()));
        resources.set_cpu(Some(cpu).filter(|cpu| *cpu != LinuxCpu::default()));
        if let Some(weight) = number::<u16>("blkio-weight", self.blkio_weight.as_deref())?.filter(|&weight| weight != 0)
        {
            let mut block_io = LinuxBlockIo::default();
            block_io.set_weight(Some(weight));
            resources.set_block_io(Some(block_io));
        }
        if let Some(limit) = number("pids-limit", self.pids_limit.as_deref())? {
            let mut pids = LinuxPids::default();
            pids.set_limit(limit);
            resources.set_pids(Some(pids));
        }
        Ok(resources)
    }
}

fn read(path: &Path) -> Result<LinuxResources, String> {
    let failed = |error: std::io::Error| format!("--resources {path:?}: {}", cause(&error));
    let text = if path == Path::new("-") {
        let mut text = Vec::new();
        std::io::stdin().lock().read_to_end(&mut text).map_err(failed)?;
        text
    } else {
        fs::read(path).map_err(failed)?
    };
    let name = if path == Path::new("-") { Path::new("stdin") } else { path };
    tare_spec::decode::resources(name, &text).map_err(|error| error.to_string())
}

fn number<T: FromStr>(flag: &str, word: Option<&str>) -> Result<Option<T>, String>
where
    T::Err: std::fmt::Display,
{
    word.map(|word| word.parse().map_err(|error| format!("--{flag} {word:?}: {error}"))).transpose()
}

fn bytes(flag: &str, word: Option<&str>) -> Result<Option<i64>, String> {
    word.map(|word| size::parse(word).map_err(|cause| format!("--{flag}: {cause}"))).transpose()
}

#[cfg(test)]
mod tests;
