//! The setting of a fault test: a service in both regions, and steady calls from the laptop while something breaks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::events::{self, Event, Kind, now_us};
use crate::lab::{Host, Lab};
use crate::node::{Network, PROXY};
use crate::process::{PATIENCE, Process};
use crate::programs;

/// The service of the lab program, as the network names it.
pub const ECHO: &str = "lab.echo";
/// Where it listens.
pub const ECHO_PORT: u16 = 19100;
/// Trials of every fault.
pub const TRIALS: usize = 5;
/// Calls a second while something breaks.
pub const RATE: u32 = 50;
/// Streams open beside the calls.
pub const STREAMS: u32 = 5;

/// Held while a fault is measured: another one on the same processors would be measured too.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Three nodes and the service in the regions asked for.
#[derive(Debug)]
pub struct Scenario<'a> {
    /// The nodes.
    pub network: Network<'a>,
    /// The service of each region.
    pub services: BTreeMap<Host, Process>,
}

impl<'a> Scenario<'a> {
    /// Starts everything and waits until the laptop sees every instance.
    pub fn up(lab: &'a Lab, micro: &Path, regions: &[Host]) -> Self {
        let services = regions
            .iter()
            .map(|host| (*host, programs::lab_service(lab, *host, host.name(), ECHO_PORT)));
        let services = services.collect();
        let network = Network::up(lab, micro);
        for host in regions {
            let node = if *host == Host::Eu { &network.eu } else { &network.us };
            node.expose(ECHO, ECHO_PORT, "grpc");
        }
        network.laptop.wait_instances(ECHO, regions.len() as u64);
        Self { network, services }
    }

    /// Calls that the services got more than once although their caller had not allowed it.
    pub fn forbidden_repeats(&self) -> Vec<u64> {
        let mut seen = BTreeMap::<u64, u32>::new();
        for line in self.services.values().flat_map(Process::lines) {
            if let Some(id) = line.strip_prefix("call ").and_then(|id| id.parse().ok()) {
                *seen.entry(id).or_default() += 1;
            }
        }
        // Every even call was marked as one that may be repeated; see the load program.
        seen.into_iter().filter(|(id, times)| id % 2 == 1 && *times > 1).map(|(id, _)| id).collect()
    }
}

/// The load program, running.
#[derive(Debug)]
pub struct Calls {
    process: Process,
}

impl Calls {
    /// Starts [`RATE`] calls a second and [`STREAMS`] streams on the laptop and waits until both flow.
    pub fn start(lab: &Lab) -> Self {
        Self::start_on(lab, Host::Laptop)
    }

    /// As [`Calls::start`], from another host.
    pub fn start_on(lab: &Lab, host: Host) -> Self {
        Self::start_many(lab, host, RATE, STREAMS)
    }

    /// Starts `rate` calls a second and `streams` streams on a host and waits until both flow.
    pub fn start_many(lab: &Lab, host: Host, rate: u32, streams: u32) -> Self {
        let process = programs::lab_load(lab, host, PROXY, rate, streams);
        let calls = Self { process };
        calls.wait("a second of answered calls", PATIENCE, |e| {
            e.kind == Kind::Unary && e.status == 0 && e.id >= u64::from(rate)
        });
        for stream in 0..u64::from(streams) {
            calls.wait("every stream", PATIENCE, |e| e.kind == Kind::Message && e.id == stream);
        }
        calls
    }

    /// Waits until call number `id` has been answered.
    pub fn wait_call(&self, id: u64, limit: Duration) {
        self.wait(&format!("call {id}"), limit, |e| {
            e.kind == Kind::Unary && e.status == 0 && e.id >= id
        });
    }

    /// Waits for an event that is like this.
    pub fn wait(&self, what: &str, limit: Duration, like: impl Fn(&Event) -> bool) -> Event {
        let read = |line: &str| serde_json::from_str::<Event>(line).ok();
        let (_, line) = self
            .process
            .wait_line(0, what, limit, |line| read(line).is_some_and(|event| like(&event)));
        read(&line).expect("it was read a moment ago")
    }

    /// Waits until calls that were due at or after `from_us` have been answered for this long.
    pub fn wait_answers_for(&self, from_us: u64, time: Duration) {
        let until = from_us + u64::try_from(time.as_micros()).expect("a test lasts minutes");
        self.wait("calls to be answered again", PATIENCE * 3, |e| {
            e.kind == Kind::Unary && e.status == 0 && e.due_us() >= until
        });
    }

    /// The region that answered most calls of the last second.
    pub fn favourite(&self) -> Host {
        let seen = self.so_far();
        let last: Vec<&Event> =
            seen.iter().filter(|e| e.kind == Kind::Unary).rev().take(50).collect();
        let of =
            |host: Host| last.iter().filter(|e| e.instance.as_deref() == Some(host.name())).count();
        if of(Host::Us) > of(Host::Eu) { Host::Us } else { Host::Eu }
    }

    /// Everything so far.
    pub fn so_far(&self) -> Vec<Event> {
        events::parse(&self.process.lines())
    }

    /// Ends the calls, waits for those in flight, and gives everything that happened.
    pub fn stop(mut self) -> Vec<Event> {
        drop(self.process.input());
        self.process.wait_end(PATIENCE);
        self.so_far()
    }
}

/// Waits for a time during which a fault lasts; there is no event to wait for, the duration is the fault.
pub fn last(time: Duration) -> u64 {
    let from = now_us();
    std::thread::sleep(time);
    from
}
