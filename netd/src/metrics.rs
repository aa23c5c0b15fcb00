//! What the node itself counts, beside the proxy's own families; written as OpenMetrics.

use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::backend::Word;
use crate::node::{Node, Phase};

/// All families of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    gauges: Mutex<Gauges>,
}

/// Read from the node's own tables whenever somebody asks.
#[derive(Debug, Default)]
struct Gauges {
    links: Gauge,
    neighbours: Gauge,
    nodes: Gauge,
    services: Gauge,
    generation: Gauge,
    ready: Gauge,
    uptime: Gauge<f64, AtomicU64>,
    grant: Gauge,
    memory: Gauge,
    files: Gauge,
    backends: Backends,
}

/// Of each registry of others that is watched; there are few, named by the configuration.
#[derive(Debug, Default)]
struct Backends {
    watching: Family<[(&'static str, String); 2], Gauge>,
    entries: Family<[(&'static str, String); 2], Gauge>,
    offered: Family<[(&'static str, String); 2], Gauge>,
    skipped: Family<[(&'static str, String); 2], Gauge>,
    held: Family<[(&'static str, String); 2], Gauge>,
}

impl Metrics {
    /// The families of the node, and those that `register` adds.
    #[must_use]
    pub fn new(register: impl FnOnce(&mut Registry)) -> Self {
        let mut registry = Registry::with_prefix("micro");
        register(&mut registry);
        let gauges = Gauges::default();
        let all: [(&str, &str, &Gauge); 7] = [
            ("links", "Links to other nodes", &gauges.links),
            ("neighbours", "Links on which records flow", &gauges.neighbours),
            ("nodes", "Nodes known, this one included", &gauges.nodes),
            ("services", "Services known", &gauges.services),
            ("routes_generation", "Publications of routes", &gauges.generation),
            ("ready", "1 when the node takes calls", &gauges.ready),
            ("open_files", "File descriptors of the process", &gauges.files),
        ];
        for (name, help, gauge) in all {
            registry.register(name, help, gauge.clone());
        }
        let of = &gauges.backends;
        for (name, help, family) in [
            (
                "backend_watching",
                "1 while a back end is watched, 0 while it is stale",
                &of.watching,
            ),
            ("backend_entries", "Instances a back end has", &of.entries),
            ("backend_offered", "Of those, offered by this node", &of.offered),
            ("backend_skipped", "Entries of a back end that are not offered", &of.skipped),
            ("backend_held", "Instances of a back end held back for they flap", &of.held),
        ] {
            registry.register(name, help, family.clone());
        }
        let (seconds, bytes) = (Unit::Seconds, Unit::Bytes);
        registry.register_with_unit("uptime", "Since the start", seconds, gauges.uptime.clone());
        let expires = ("grant_expires", "When the grant ends, seconds since 1970");
        registry.register_with_unit(expires.0, expires.1, Unit::Seconds, gauges.grant.clone());
        registry.register_with_unit("memory", "Resident", bytes, gauges.memory.clone());
        Self { registry, gauges: Mutex::new(gauges) }
    }

    /// Everything, read now.
    ///
    /// # Errors
    /// When a family cannot be written: a bug of that family.
    pub fn text(&self, node: &Node) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        // One reader at a time: gauges are set and written as one.
        let gauges = self.gauges.lock();
        gauges.read(node);
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Gauges {
    fn read(&self, node: &Node) {
        let routes = node.routes();
        let whole = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let links = node.tunnel.links();
        self.links.set(whole(links.len()));
        self.neighbours.set(whole(links.iter().filter(|link| link.neighbour).count()));
        self.nodes.set(whole(routes.nodes().count()));
        self.services.set(whole(routes.services().count()));
        self.generation.set(i64::try_from(routes.generation()).unwrap_or(i64::MAX));
        self.ready.set(i64::from(node.is_ready() && *node.phase.borrow() == Phase::Serving));
        self.uptime.set(node.began.elapsed().as_secs_f64());
        let expires = node.credential.load().expires().0;
        self.grant.set(i64::try_from(expires).unwrap_or(i64::MAX));
        self.backends.read(node);
        self.memory.set(resident().unwrap_or(0));
        self.files.set(whole(std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)));
    }
}

impl Backends {
    fn read(&self, node: &Node) {
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        for watched in node.backends.iter() {
            let (backend, shown) = (&watched.backend, watched.shown());
            let kind = backend.kind.word().to_owned();
            let labels = [("backend", backend.name.clone()), ("kind", kind)];
            let set = |family: &Family<_, Gauge>, number| {
                family.get_or_create(&labels).set(number);
            };
            set(&self.watching, i64::from(shown.word == Word::Watching));
            set(&self.entries, whole(shown.counts.entries));
            set(&self.offered, whole(shown.counts.offered));
            set(&self.skipped, whole(shown.counts.skipped));
            set(&self.held, whole(shown.counts.held));
        }
    }
}

/// Resident bytes of this process, as the kernel counts them.
fn resident() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib.saturating_mul(1024))
}
