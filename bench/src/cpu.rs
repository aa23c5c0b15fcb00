//! What a process has spent of the CPU, all its threads together, from `/proc/PID/stat`.

use std::fs;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Where user time stands after the process name in `/proc/PID/stat` (proc(5): field 14).
const USER_TIME: usize = 11;

/// A process whose CPU time is read, and the name it has in reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// What reports call it.
    pub name: String,
    /// Its process id.
    pub pid: u32,
}

impl Watched {
    /// This process.
    pub fn myself(name: &str) -> Self {
        Self { name: name.to_owned(), pid: std::process::id() }
    }
}

impl FromStr for Watched {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, pid) = text.split_once('=').ok_or("write NAME=PID")?;
        let pid = pid.parse().map_err(|_| format!("{pid:?} is not a process id"))?;
        Ok(Self { name: name.to_owned(), pid })
    }
}

/// CPU time one process spent on a measured piece of work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CpuUse {
    /// Which process.
    pub name: String,
    /// CPU seconds, user and system, of all threads.
    pub seconds: f64,
    /// CPU seconds per unit of work: per 1 000 calls, or per GiB.
    pub per_unit: f64,
}

/// Reads the CPU clocks of some processes at two moments.
pub struct Meter(Vec<(Watched, Duration)>);

impl Meter {
    /// Starts measuring; a process that is gone is an error.
    pub fn start(watched: &[Watched]) -> Result<Self, Error> {
        let begun = watched.iter().map(|one| Ok((one.clone(), spent(one)?)));
        begun.collect::<Result<_, Error>>().map(Self)
    }

    /// CPU time since the start; `per_unit` is left at zero until the work is known.
    pub fn stop(self) -> Result<Vec<CpuUse>, Error> {
        let spend = |(one, begun): (Watched, Duration)| {
            let seconds = spent(&one)?.saturating_sub(begun).as_secs_f64();
            Ok(CpuUse { name: one.name, seconds, per_unit: 0.0 })
        };
        self.0.into_iter().map(spend).collect()
    }
}

/// Sets `per_unit` of every use, for `units` of work done.
pub fn share(mut uses: Vec<CpuUse>, units: f64) -> Vec<CpuUse> {
    for one in &mut uses {
        one.per_unit = if units > 0.0 { one.seconds / units } else { 0.0 };
    }
    uses
}

fn spent(watched: &Watched) -> Result<Duration, Error> {
    let path = format!("/proc/{}/stat", watched.pid);
    let text =
        fs::read_to_string(&path).map_err(Error::io(format!("{} ({path})", watched.name)))?;
    let ticks = ticks(&text).ok_or_else(|| Error::Wrong(format!("{path} has an unknown form")))?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// User and system time, in clock ticks. The name in parentheses may hold anything, also `)`.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(USER_TIME);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Memory a process holds now, in bytes (`VmRSS`).
pub fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_survive_a_hostile_process_name() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194304 123 0 0 0 7 5 0 0 20 0 1 0 100 0 0";
        assert_eq!(ticks(stat), Some(12));
        assert_eq!(ticks("42 nothing"), None);
    }

    #[test]
    fn work_done_here_is_seen() {
        let before = spent(&Watched::myself("test")).unwrap();
        let mut sum = 0_u64;
        while spent(&Watched::myself("test")).unwrap() == before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(resident(std::process::id()).is_some_and(|bytes| bytes > 100_000));
    }

    #[test]
    fn names_and_ids_are_read() {
        let wanted = Watched { name: "proxy".into(), pid: 7 };
        assert_eq!("proxy=7".parse(), Ok(wanted));
        assert!("proxy".parse::<Watched>().is_err());
        assert!("proxy=x".parse::<Watched>().is_err());
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let nobody = Watched { name: "gone".into(), pid: u32::MAX };
        assert!(Meter::start(&[nobody]).is_err());
    }
}
