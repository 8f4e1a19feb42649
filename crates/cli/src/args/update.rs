//! `update`.

use std::path::PathBuf;

use clap::Args;

/// Change the limits of a container
#[derive(Debug, Args)]
pub(crate) struct Update {
    /// The container's name
    pub(crate) id: String,
    /// Read them from a JSON file (linux.resources), or from stdin if it is -; the other flags are then ignored
    #[arg(short, long, value_name = "FILE")]
    pub(crate) resources: Option<PathBuf>,
    /// Block I/O weight, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub(crate) blkio_weight: Option<String>,
    /// CFS period in microseconds
    #[arg(long, value_name = "USEC")]
    pub(crate) cpu_period: Option<String>,
    /// CFS quota in microseconds
    #[arg(long, value_name = "USEC")]
    pub(crate) cpu_quota: Option<String>,
    /// CFS burst in microseconds
    #[arg(long, value_name = "USEC")]
    pub(crate) cpu_burst: Option<String>,
    /// CPU shares
    #[arg(long, value_name = "SHARES")]
    pub(crate) cpu_share: Option<String>,
    /// Real-time period in microseconds
    #[arg(long, value_name = "USEC")]
    pub(crate) cpu_rt_period: Option<String>,
    /// Real-time runtime in microseconds
    #[arg(long, value_name = "USEC")]
    pub(crate) cpu_rt_runtime: Option<String>,
    /// 1: SCHED_IDLE, 0: not
    #[arg(long, value_name = "IDLE")]
    pub(crate) cpu_idle: Option<String>,
    /// CPUs to use: 0-3,7
    #[arg(long, value_name = "CPUS")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "NODES")]
    pub(crate) cpuset_mems: Option<String>,
    /// Memory limit, with a unit (512m), -1 for none
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Soft memory limit
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_reservation: Option<String>,
    /// Memory and swap together, -1 for no limit
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_swap: Option<String>,
    /// Most processes, -1 for no limit
    #[arg(long, value_name = "N")]
    pub(crate) pids_limit: Option<String>,
    #[arg(long, hide = true, value_name = "SIZE")]
    pub(crate) kernel_memory: Option<String>,
    #[arg(long, hide = true, value_name = "SIZE")]
    pub(crate) kernel_memory_tcp: Option<String>,
    /// Intel RDT schema of the L3 cache
    #[arg(long, value_name = "SCHEMA")]
    pub(crate) l3_cache_schema: Option<String>,
    /// Intel RDT schema of the memory bandwidth
    #[arg(long, value_name = "SCHEMA")]
    pub(crate) mem_bw_schema: Option<String>,
}
