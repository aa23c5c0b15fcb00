//! The machine a result came from: without it a number means nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::child::output;

/// What the numbers depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Processor model.
    pub cpu: String,
    /// Processors this process may use.
    pub cores: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Kernel name and release.
    pub kernel: String,
    /// haproxy, as it calls itself; empty when absent.
    pub haproxy: String,
    /// nginx, as it calls itself; empty when absent.
    pub nginx: String,
    /// When, RFC 3339 with zone.
    pub at: String,
}

impl Machine {
    /// This machine, now.
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let memory_kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
        let release = read("/proc/sys/kernel/osrelease");
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: memory_kib / 1024,
            kernel: format!("Linux {}", release.trim()),
            haproxy: first_line(&output(Command::new("haproxy").arg("-v")).unwrap_or_default()),
            nginx: nginx(),
            at: jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        }
    }

    /// One line for under a table.
    pub fn line(&self) -> String {
        let Self { cpu, cores, memory_mib, kernel, haproxy, nginx, at } = self;
        let mut line = format!("{cpu}, {cores} cores, {memory_mib} MiB, {kernel}; {at}");
        for program in [haproxy, nginx].into_iter().filter(|program| !program.is_empty()) {
            line.push_str("; ");
            line.push_str(program);
        }
        line
    }
}

/// Where `program` is, if the search path has it.
pub(super) fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps daemons where only root looks.
    let sbin = Path::new("/usr/sbin").to_path_buf();
    std::env::split_paths(&path).chain([sbin]).any(|folder| folder.join(program).is_file())
}

fn nginx() -> String {
    // It answers on stderr.
    let said = Command::new("nginx").arg("-v").output().map(|out| out.stderr).unwrap_or_default();
    first_line(String::from_utf8_lossy(&said).trim_start_matches("nginx version: "))
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.split(" - ").next().unwrap_or_default().to_owned()
}

fn field(text: &str, name: &str) -> String {
    let of = |line: &str| {
        Some(line.strip_prefix(name)?.trim_start().strip_prefix(':')?.trim().to_owned())
    };
    text.lines().find_map(of).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name() {
        let text = "processor\t: 0\nmodel name\t: EPYC 9B14\n";
        assert_eq!(field(text, "model name"), "EPYC 9B14");
        assert_eq!(field(text, "flags"), "");
        assert_eq!(field("MemTotal:       8000 kB\n", "MemTotal"), "8000 kB");
    }

    #[test]
    fn this_machine_has_cores_and_a_kernel() {
        let here = Machine::here();
        assert!(here.cores > 0 && here.memory_mib > 0, "{here:?}");
        assert!(here.kernel.len() > "Linux ".len(), "{here:?}");
        assert!(installed("sh"));
        assert!(!installed("no-such-program-anywhere"));
    }
}
