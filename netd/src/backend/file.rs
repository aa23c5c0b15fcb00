//! A file of services, read again when it changes.
//!
//! ```toml
//! [[service]]
//! name = "orders"
//! version = "1.4.0"                 # latest, unless said
//! protocol = "grpc"                 # http, unless said
//! labels = { tier = "gold" }
//! address = ["10.0.0.7:4000", "10.0.0.8:4000"]
//!
//! [[service.instance]]              # one with an id or labels of its own
//! address = "10.0.0.9:4000"
//! id = "orders-9"
//! labels = { zone = "b" }
//! ```
//!
//! It is looked at each second and not watched by inotify: one `stat` sees what inotify does not, a
//! file swapped by a symbolic link of its directory (as Kubernetes mounts them) or on a network disk.
//! **A bad edit changes nothing**: what was known is kept, and the place that is wrong is told.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::record::{Instance, Protocol};
use proto::{LabelSet, ServiceName};
use router::Registration;
use serde::Deserialize;
use toml::Spanned;

use super::entry::Read;
use super::session::Feed;
use super::standing::Trouble;
use super::table::MAX_ENTRIES;
use crate::config::backend::{PROTOCOLS, protocol};
use crate::config::file::{Strings, place};
use crate::error::{Exit, Problem};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// The largest file that is read.
const MAX_FILE: u64 = 8 << 20;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    service: Vec<ServiceTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceTable {
    name: Spanned<String>,
    version: Option<String>,
    protocol: Option<Spanned<String>>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    address: Option<Spanned<Strings>>,
    #[serde(default)]
    instance: Vec<InstanceTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InstanceTable {
    address: Spanned<String>,
    id: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// What tells one state of a file from another.
type Stamp = (u64, u64, i64, i64, u64);

/// A file that is watched.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    /// What was read last, or could not be.
    seen: Option<Option<Stamp>>,
}

impl Source {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, seen: None }
    }

    /// Looks again and again.
    pub(super) async fn watch(&mut self, feed: &mut Feed) -> Result<(), Trouble> {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let (path, before) = (self.path.clone(), self.seen);
            let look = tokio::task::spawn_blocking(move || look(&path, before)).await;
            let look = look.map_err(|why| Trouble::new(format!("reading it failed: {why}")))?;
            let Some((stamp, read)) = look else { continue };
            self.seen = Some(stamp);
            match read {
                Ok(all) => feed.all(all).await?,
                Err(problem) => feed.lost(trouble(&problem)).await?,
            }
        }
    }
}

fn trouble(problem: &Problem) -> Trouble {
    let why = match &problem.excerpt {
        Some(at) => format!("{}:{}:{}: {}", at.file, at.line, at.column, at.note),
        None => [Some(&problem.what), problem.why.as_ref()]
            .into_iter()
            .flatten()
            .cloned()
            .collect::<Vec<_>>()
            .join(": "),
    };
    Trouble { why, detail: Some(problem.to_string()), refused: false }
}

type Look = (Option<Stamp>, Result<Vec<(String, Read)>, Problem>);

/// What is in the file, if that has changed.
fn look(path: &Path, before: Option<Option<Stamp>>) -> Option<Look> {
    let found = std::fs::metadata(path);
    let stamp =
        found.as_ref().ok().map(|of| (of.dev(), of.ino(), of.mtime(), of.mtime_nsec(), of.len()));
    if before == Some(stamp) {
        return None;
    }
    let unreadable = |why: String| {
        Problem::new("M5002", Exit::Config, format!("the file {} cannot be read", path.display()))
            .why(why)
            .attempt("micro registry backends", "shows what is known of it")
    };
    let read = || {
        let length = found.map_err(|error| unreadable(error.to_string()))?.len();
        if length > MAX_FILE {
            return Err(unreadable(format!("it has more than {MAX_FILE} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
        parse(&text, &path.display().to_string())
    };
    Some((stamp, read()))
}

/// Reads the text of a file called `name`: entries by service and address.
///
/// # Errors
/// M5002 with the place: what is not TOML, a key there is not, a name or word that is none.
fn parse(text: &str, name: &str) -> Result<Vec<(String, Read)>, Problem> {
    let wrong = |span: std::ops::Range<usize>, note: String| {
        Problem::new("M5002", Exit::Config, "services: an edit that cannot be taken")
            .at(place(text, name, span, note))
            .attempt("micro registry backends", "shows what is known of it")
    };
    let written: Written = toml::from_str(text).map_err(|error| {
        wrong(error.span().unwrap_or(0..0), error.message().trim().replace('\n', ", "))
    })?;
    let mut all = Vec::new();
    for table in written.service {
        let span = table.name.span();
        let service: ServiceName =
            table.name.get_ref().parse().map_err(|why| wrong(span.clone(), format!("{why}")))?;
        let protocol = match &table.protocol {
            None => Protocol::Http1,
            Some(word) => protocol(word.get_ref()).ok_or_else(|| {
                wrong(word.span(), format!("{:?} is no protocol: {PROTOCOLS}", word.get_ref()))
            })?,
        };
        let labels: LabelSet = table.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let plain = table.address.into_iter().flat_map(|addresses| {
            let span = addresses.span();
            let each = addresses.into_inner().0.into_iter();
            each.map(move |address| (address, span.clone(), None, BTreeMap::new()))
        });
        let own = table.instance.into_iter().map(|one| {
            let span = one.address.span();
            (one.address.into_inner(), span, one.id, one.labels)
        });
        let before = all.len();
        for (address, span, id, own) in plain.chain(own) {
            if !(address.starts_with("unix:/") || has_port(&address)) {
                return Err(wrong(span, format!("{address:?} is no address: write host:port")));
            }
            if all.len() >= MAX_ENTRIES {
                return Err(wrong(span, format!("a file has at most {MAX_ENTRIES} instances")));
            }
            let id = id.unwrap_or_else(|| format!("{service}@{address}"));
            let metadata = labels.overlaid(&own.into_iter().collect());
            let registration = Registration {
                service: service.clone(),
                version: table.version.clone().unwrap_or_else(|| "latest".to_owned()),
                metadata: LabelSet::default(),
                endpoints: Vec::new(),
                instance: Instance { id: id.clone(), address, protocol, metadata },
                ttl: None,
            };
            all.push((format!("{service}/{id}"), Ok(registration)));
        }
        if all.len() == before {
            return Err(wrong(span, "it has neither an address nor an instance".to_owned()));
        }
    }
    Ok(all)
}

fn has_port(address: &str) -> bool {
    let split = address.rsplit_once(':');
    split.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_and_their_instances_are_read() {
        let text = "[[service]]\nname = \"orders\"\nprotocol = \"grpc\"\nversion = \"2\"\n\
                    labels = { tier = \"gold\" }\naddress = [\"10.0.0.7:1\", \"h:2\"]\n\
                    [[service.instance]]\naddress = \"10.0.0.9:4\"\nid = \"o-9\"\nlabels = { tier = \"x\" }\n\
                    [[service]]\nname = \"web\"\naddress = \"127.0.0.1:80\"\n";
        let all = parse(text, "s.toml").unwrap();
        let keys: Vec<_> = all.iter().map(|(key, _)| key.as_str()).collect();
        let wanted =
            ["orders/orders@10.0.0.7:1", "orders/orders@h:2", "orders/o-9", "web/web@127.0.0.1:80"];
        assert_eq!(keys, wanted);
        let last = all[2].1.as_ref().unwrap();
        assert_eq!((last.version.as_str(), last.instance.protocol), ("2", Protocol::Grpc));
        assert_eq!(last.instance.metadata.to_string(), "tier=x");
        assert!(parse("", "s.toml").unwrap().is_empty(), "an empty file has no services");
    }

    #[test]
    fn a_bad_edit_is_shown_where_it_stands() {
        for (text, line, note) in [
            ("[[service]\n", 1, "]"),
            ("[[service]]\nname = \"a b\"\naddress = \"h:1\"", 2, "letters, digits"),
            ("[[service]]\nname = \"a\"\naddress = \"h\"", 3, "write host:port"),
            ("[[service]]\nname = \"a\"\naddress = [1]", 3, "string"),
            ("[[service]]\nname = \"a\"\n", 2, "neither an address"),
            ("[[service]]\nname = \"a\"\nadress = \"h:1\"", 3, "unknown field `adress`"),
            ("[[service]]\nname = \"a\"\nprotocol = \"x\"\naddress = \"h:1\"", 3, "is no protocol"),
        ] {
            let problem = parse(text, "s.toml").unwrap_err();
            let (shown, told) = (problem.to_string(), trouble(&problem));
            assert!(
                shown.contains(&format!("--> s.toml:{line}:")) && shown.contains(note),
                "{shown}"
            );
            assert!(told.why.starts_with(&format!("s.toml:{line}:")), "{}", told.why);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ -~\\n]{0,200}") {
            let _ = parse(&text, "f");
        }
    }
}
