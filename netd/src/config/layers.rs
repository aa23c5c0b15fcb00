//! Flags over environment over file over default, and where each value came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use proto::LabelSet;

use super::values::{self, Raw};
use super::{
    Address, DEFAULT_DNS, DEFAULT_GRACE, DEFAULT_GRANT_TTL, DEFAULT_LISTEN, DEFAULT_MAX_INFLIGHT,
    DEFAULT_NATS, DEFAULT_OBSERVE, DEFAULT_PROXY, LogFormat, Paths, Settings, StoreBackend, Users,
    backend, bridge, duration, env, file, login, secret, stream,
};
use crate::error::{Excerpt, Exit, Problem};

/// One key: what people see of it.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Section and key.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
}

/// Every key this release knows.
pub const KEYS: &[Key] = &[
    key("node.name", "name of this node"),
    key("node.region", "where it is: eu/fra, home"),
    key("node.labels", "labels of this node"),
    key("network.labels", "labels of all nodes of the network, under their own: for a shared file"),
    key("network.name", "name of the network"),
    key("network.address", "UDP addresses for links"),
    key("network.advertise", "what others are told to dial"),
    key("network.join", "seeds: host:port, or an SRV name"),
    key("network.ticket", "ticket to join with: file:PATH or env:NAME"),
    key("proxy.allow_users", "users served beside the node's own and root; * is all"),
    key("proxy.http.address", "where programs call"),
    key("proxy.http.max_inflight", "calls in flight at once"),
    key("proxy.etcd.address", "where programs look for etcd, beside the proxy: 127.0.0.1:2379"),
    key("store.backend", "where records of programs are kept: disk or memory"),
    key("dns.address", "where names are asked for, UDP and TCP"),
    key(backend::KEY, "registries of others to watch: tables, or kind=address,kind"),
    key("broker.address", "where clients of NATS connect"),
    key("broker.token", "tokens that let them in: file:PATH or env:NAME"),
    key("broker.nkey", "public keys of users that are let in: U…"),
    key(bridge::KEY, "bridges to servers of NATS: tables of the file"),
    key(stream::KEY, "topics whose messages are kept: tables of the file"),
    key("observe.address", "where health and metrics are read"),
    key("log.level", "level, or directives"),
    key("log.format", "auto, text or json"),
    key("drain.grace", "how long open calls may take when the node stops"),
    key("identity.grant_ttl", "how long grants signed here are valid"),
];

const fn key(name: &'static str, about: &'static str) -> Key {
    Key { name, about }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The flag of this name.
    Flag(&'static str),
    /// The variable of this name.
    Environment(String),
    /// This place in a file; the note is empty.
    File(Excerpt),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Environment(name) => write!(f, "env {name}"),
            Self::File(place) => write!(f, "{}:{}", place.file, place.line),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Values from one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer(BTreeMap<&'static str, (Raw, Origin)>);

impl Layer {
    /// Sets `key`; a later value replaces an earlier one.
    pub fn put(&mut self, key: &'static str, raw: Raw, origin: Origin) {
        debug_assert!(KEYS.iter().any(|known| known.name == key), "{key} is not in KEYS");
        self.0.insert(key, (raw, origin));
    }

    /// The value of `key`, if this layer has one.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<(&Raw, &Origin)> {
        self.0.get(key).map(|(raw, origin)| (raw, origin))
    }
}

/// One line of `micro config show`.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Section and key.
    pub key: &'static str,
    /// The value as it would be written; a secret is not shown.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// Settings with what there is to say about them.
#[derive(Debug)]
pub struct Loaded {
    /// What it all means.
    pub settings: Settings,
    /// Every key, with where its value came from.
    pub shown: Vec<Shown>,
    /// One line each.
    pub warnings: Vec<String>,
}

/// Reads file and environment under `flags`.
///
/// # Errors
/// M4002 to M4004 with exit 78; for a wrong flag M4001 with exit 2.
pub fn load(
    flags: Layer,
    config: Option<&Path>,
    socket: Option<PathBuf>,
) -> Result<Loaded, Problem> {
    let paths = Paths::find(config)?;
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let (environment, warnings) = env::read(variables);
    let file = match &paths.config {
        Some(path) => file::read(path)?,
        None => Layer::default(),
    };
    let mut pick = Pick { layers: [flags, environment, file], shown: Vec::new() };
    let settings = pick.settings(paths, socket)?;
    Ok(Loaded { settings, shown: pick.shown, warnings })
}

/// Takes values off the layers, strongest first, and notes what was taken.
struct Pick {
    layers: [Layer; 3],
    shown: Vec<Shown>,
}

impl Pick {
    fn settings(&mut self, paths: Paths, socket: Option<PathBuf>) -> Result<Settings, Problem> {
        let name_asked = self.layers.iter().any(|layer| layer.get("node.name").is_some());
        let default_address = |text: &str| Address {
            at: text.parse().expect("the constant is an address"),
            asked: false,
        };
        let show_address = |address: &Address| address.at.to_string();
        let show_labels = |labels: &LabelSet| labels.to_string();
        let (streams, of_streams) = self.streams()?;
        Ok(Settings {
            name: self.take("node.name", values::node_name, values::host_name, Clone::clone)?,
            name_asked,
            region: self.take("node.region", values::region, || "home".to_owned(), Clone::clone)?,
            labels: {
                let own =
                    self.take("node.labels", values::labels, LabelSet::default, show_labels)?;
                let of_all =
                    self.take("network.labels", values::labels, LabelSet::default, show_labels)?;
                of_all.overlaid(&own)
            },
            network: self.take(
                "network.name",
                |raw| values::network_name(raw).map(Some),
                || None,
                |name| name.clone().unwrap_or_default(),
            )?,
            listen: self.take(
                "network.address",
                values::addresses,
                || vec![default_address(DEFAULT_LISTEN)],
                |all| all.iter().map(show_address).collect::<Vec<_>>().join(","),
            )?,
            advertise: self
                .take("network.advertise", values::seeds, Vec::new, |all| all.join(","))?,
            join: self.take("network.join", values::seeds, Vec::new, |all| all.join(","))?,
            ticket: self.take(
                "network.ticket",
                ticket,
                || None,
                |ticket| {
                    if ticket.is_some() { "(secret)".to_owned() } else { String::new() }
                },
            )?,
            allow_users: self.take(
                "proxy.allow_users",
                values::users,
                || Users::These(Vec::new()),
                values::show_users,
            )?,
            proxy: self.take(
                "proxy.http.address",
                values::address,
                || default_address(DEFAULT_PROXY),
                show_address,
            )?,
            max_inflight: self.take(
                "proxy.http.max_inflight",
                values::count,
                || DEFAULT_MAX_INFLIGHT,
                u32::to_string,
            )?,
            etcd: self.take(
                "proxy.etcd.address",
                |raw| values::address(raw).map(|address| Some(address.at)),
                || None,
                |at| at.map_or_else(String::new, |at| at.to_string()),
            )?,
            store: self.take(
                "store.backend",
                values::store_backend,
                || StoreBackend::Disk,
                StoreBackend::to_string,
            )?,
            dns: self.take(
                "dns.address",
                values::address,
                || default_address(DEFAULT_DNS),
                show_address,
            )?,
            backends: self.backends()?,
            nats: self.take(
                "broker.address",
                values::address,
                || default_address(DEFAULT_NATS),
                show_address,
            )?,
            nats_tokens: self.take("broker.token", login::tokens, Vec::new, |tokens| {
                vec!["(secret)"; tokens.len()].join(",")
            })?,
            nats_keys: self.take("broker.nkey", login::keys, Vec::new, |keys| {
                keys.iter().map(proxy::nats::user_text).collect::<Vec<_>>().join(",")
            })?,
            bridges: self.bridges(&streams)?,
            streams: self.show_streams(streams, of_streams),
            observe: self.take(
                "observe.address",
                values::address,
                || default_address(DEFAULT_OBSERVE),
                show_address,
            )?,
            log_level: self.take(
                "log.level",
                values::log_level,
                || "info".to_owned(),
                Clone::clone,
            )?,
            log_format: self.take(
                "log.format",
                values::log_format,
                || LogFormat::Auto,
                LogFormat::to_string,
            )?,
            grace: self.take(
                "drain.grace",
                values::time,
                || DEFAULT_GRACE,
                |time| duration::show(*time),
            )?,
            grant_ttl: self.take(
                "identity.grant_ttl",
                values::grant_ttl,
                || DEFAULT_GRANT_TTL,
                |time| duration::show(*time),
            )?,
            socket,
            paths,
        })
    }

    fn backends(&mut self) -> Result<Vec<backend::Backend>, Problem> {
        let given = self.layers.iter().find_map(|layer| layer.get(backend::KEY));
        let (all, origin) = match given {
            Some((raw, origin)) => (backend::read(raw, origin)?, origin.clone()),
            None => (Vec::new(), Origin::Default),
        };
        self.shown.push(Shown { key: backend::KEY, value: backend::show(&all), origin });
        Ok(all)
    }

    /// Read before the bridges, which they name; shown behind them.
    fn streams(&self) -> Result<(Vec<stream::Stream>, Origin), Problem> {
        let given = self.layers.iter().find_map(|layer| layer.get(stream::KEY));
        let (all, origin) = match given {
            Some((raw, origin)) => (stream::read(raw, origin)?, origin.clone()),
            None => (Vec::new(), Origin::Default),
        };
        Ok((all, origin))
    }

    fn show_streams(&mut self, all: Vec<stream::Stream>, origin: Origin) -> Vec<stream::Stream> {
        self.shown.push(Shown { key: stream::KEY, value: stream::show(&all), origin });
        all
    }

    fn bridges(&mut self, streams: &[stream::Stream]) -> Result<Vec<bridge::Bridge>, Problem> {
        let used: Vec<&str> = streams.iter().filter_map(|one| one.bridge.as_deref()).collect();
        let given = self.layers.iter().find_map(|layer| layer.get(bridge::KEY));
        let (all, origin) = match given {
            Some((raw, origin)) => (bridge::read(raw, origin, &used)?, origin.clone()),
            None => (Vec::new(), Origin::Default),
        };
        if let Some(none) = used.iter().find(|used| all.iter().all(|bridge| bridge.name != **used))
        {
            let of = self.layers.iter().find_map(|layer| layer.get(stream::KEY));
            let origin = of.map_or(Origin::Default, |(_, origin)| origin.clone());
            let why = format!("no bridge is called {none:?}: write [broker.bridge.{none}]");
            return Err(invalid(stream::KEY, &origin, why));
        }
        self.shown.push(Shown { key: bridge::KEY, value: bridge::show(&all), origin });
        Ok(all)
    }

    fn take<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&Raw) -> Result<T, String>,
        default: impl Fn() -> T,
        show: impl Fn(&T) -> String,
    ) -> Result<T, Problem> {
        let given = self.layers.iter().find_map(|layer| layer.get(key));
        let (value, origin) = match given {
            Some((raw, origin)) => {
                (read(raw).map_err(|why| invalid(key, origin, why))?, origin.clone())
            }
            None => (default(), Origin::Default),
        };
        self.shown.push(Shown { key, value: show(&value), origin });
        Ok(value)
    }
}

fn ticket(raw: &Raw) -> Result<Option<secret::Secret>, String> {
    match raw {
        Raw::Text(text) => {
            secret::read(text).map(|ticket| Some(ticket).filter(|ticket| !ticket.is_empty()))
        }
        Raw::List(_) | Raw::Map(_) | Raw::Tables(_) => Err("one ticket is expected".to_owned()),
    }
}

pub(super) fn invalid(key: &str, origin: &Origin, why: String) -> Problem {
    match origin {
        Origin::Flag(flag) => {
            Problem::new("M4001", Exit::Usage, format!("{flag} has a value that does not fit"))
                .why(why)
                .attempt("micro help network up", "")
        }
        Origin::File(place) => {
            Problem::new("M4003", Exit::Config, format!("config: invalid value of \"{key}\""))
                .at(Excerpt { note: why, ..place.clone() })
                .attempt("micro config check", "")
        }
        Origin::Environment(name) => {
            Problem::new("M4003", Exit::Config, format!("config: invalid value of {name}"))
                .why(why)
                .attempt("micro config show --origin", "")
        }
        Origin::Default => Problem::bug(format!("the default of {key} is refused: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(layers: [Layer; 3]) -> Result<(Settings, Vec<Shown>), Problem> {
        let mut pick = Pick { layers, shown: Vec::new() };
        let paths = Paths {
            config: None,
            user_config: "/c/micro.toml".into(),
            state: "/s/micro".into(),
            runtime: "/r/micro".into(),
        };
        pick.settings(paths, None).map(|settings| (settings, pick.shown))
    }

    fn layer(key: &'static str, text: &str, origin: Origin) -> Layer {
        let mut layer = Layer::default();
        layer.put(key, Raw::Text(text.to_owned()), origin);
        layer
    }

    #[test]
    fn flags_win_over_environment_over_file_over_default() {
        let file = file::parse("[node]\nname = \"f\"\nregion = \"eu\"\n", "m.toml").unwrap();
        let environment = layer("node.name", "e", Origin::Environment("MICRO_NODE_NAME".into()));
        let flags = layer("node.name", "a", Origin::Flag("--name"));
        for (layers, name, origin) in [
            ([flags, environment.clone(), file.clone()], "a", "flag --name"),
            ([Layer::default(), environment, file.clone()], "e", "env MICRO_NODE_NAME"),
            ([Layer::default(), Layer::default(), file], "f", "m.toml:2"),
        ] {
            let (settings, shown) = picked(layers).unwrap();
            assert_eq!((settings.name.as_str(), settings.region.as_str()), (name, "eu"));
            let line = shown.iter().find(|line| line.key == "node.name").unwrap();
            assert_eq!(line.origin.to_string(), origin);
        }
    }

    #[test]
    fn a_stream_names_a_bridge_that_there_is() {
        let of = |bridges: &str| {
            let text = format!("{bridges}[broker.stream.s]\ntopics = \"a\"\nbridge = \"acme\"\n");
            let file = file::parse(&text, "m.toml").unwrap();
            let picked = picked([Layer::default(), Layer::default(), file]);
            picked.map(|(settings, _)| (settings.bridges.len(), settings.streams.len()))
        };
        let there = of("[broker.bridge.acme]\nurl = \"nats://a\"\n").unwrap();
        assert_eq!(there, (1, 1), "it need not carry anything else");
        let none = of("").unwrap_err().to_string();
        assert!(none.contains("no bridge is called \"acme\""), "{none}");
    }

    #[test]
    fn every_key_is_shown_once_and_in_order() {
        let (settings, shown) = picked(Default::default()).unwrap();
        let keys: Vec<_> = shown.iter().map(|line| line.key).collect();
        assert_eq!(keys, KEYS.iter().map(|key| key.name).collect::<Vec<_>>());
        assert!(!settings.proxy.asked && !settings.listen[0].asked);
        assert_eq!(settings.socket_path().parent(), Some(Path::new("/r/micro")));
    }

    #[test]
    fn a_wrong_value_is_reported_where_it_stands() {
        let file = file::parse("[drain]\ngrace = \"soon\"\n", "m.toml").unwrap();
        let problem = picked([Layer::default(), Layer::default(), file]).unwrap_err();
        assert_eq!(problem.exit, Exit::Config);
        let text = problem.to_string();
        assert!(text.contains("--> m.toml:2:9") && text.contains("^^^^^^"), "{text}");

        let flag = layer("proxy.http.address", "8081", Origin::Flag("--proxy-address"));
        let problem = picked([flag, Layer::default(), Layer::default()]).unwrap_err();
        assert_eq!((problem.exit, &*problem.code), (Exit::Usage, "M4001"));
    }

    #[test]
    fn a_ticket_is_never_shown() {
        let given = layer("network.ticket", "mj1secret", Origin::Flag("--join"));
        let (settings, shown) = picked([given, Layer::default(), Layer::default()]).unwrap();
        assert_eq!(settings.ticket.as_ref().map(|ticket| ticket.expose()), Some("mj1secret"));
        assert!(shown.iter().all(|line| !line.value.contains("mj1")));
    }
}
