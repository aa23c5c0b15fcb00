//! `[[registry.backend]]`: the registries of others that this node watches.
//!
//! Each table is one back end. What is written in it is checked by its kind: a key that another kind
//! has is an error as one that none has. From the environment and a flag there is a short form,
//! `KIND` or `KIND=ADDRESS`, several with commas: `mdns,etcd=10.0.0.7:2379`.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;

use proto::record::Protocol;
use serde::Deserialize;
use toml::Spanned;

use super::file::{Strings, place};
use super::layers::Origin;
use super::secret::{self, Secret};
use super::values::Raw;
use crate::error::{Excerpt, Problem};

/// The key of all of them.
pub const KEY: &str = "registry.backend";
/// Back ends of one node.
pub const MAX_BACKENDS: usize = 16;
/// Addresses of one back end.
const MAX_ADDRESSES: usize = 16;
/// The longest name: it is a label of metrics and of instances.
const MAX_NAME: usize = 63;
/// Where go-micro keeps instances in etcd.
const PREFIX: &str = "/micro/registry/";
/// The domain of go-micro's announcements.
const DOMAIN: &str = "micro";
/// Where an agent of Consul is, unless said.
const CONSUL: &str = "127.0.0.1:8500";

/// A table as it was written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is told in docs/registry.md")]
pub struct BackendTable {
    pub kind: Option<Spanned<String>>,
    pub name: Option<Spanned<String>>,
    pub address: Option<Spanned<Strings>>,
    pub path: Option<Spanned<String>>,
    pub user: Option<Spanned<String>>,
    pub password: Option<Spanned<String>>,
    pub token: Option<Spanned<String>>,
    pub prefix: Option<Spanned<String>>,
    pub domain: Option<Spanned<String>>,
    pub protocol: Option<Spanned<String>>,
    pub loopback: Option<Spanned<bool>>,
    pub namespace: Option<Spanned<String>>,
    pub selector: Option<Spanned<String>>,
    pub port: Option<Spanned<String>>,
    pub ca: Option<Spanned<String>>,
}

/// One value of a table, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) key: &'static str,
    pub(super) values: Vec<String>,
    pub(super) at: Option<Excerpt>,
}

/// A table, before it is known what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub(super) cells: Vec<Cell>,
    pub(super) at: Option<Excerpt>,
}

/// A back end to watch, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// What it is called: in tables, metrics and the log. One of a node has it.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Whether its loopback addresses are this machine's; `None`: as its kind and address say.
    pub loopback: Option<bool>,
    /// What instances speak that do not say so.
    pub protocol: Protocol,
}

/// What a back end is, with what only this kind is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file of services.
    File {
        /// Where it is.
        path: PathBuf,
    },
    /// etcd 3, with keys as go-micro writes them.
    Etcd {
        /// `host:port` each; one is asked, another when it fails.
        addresses: Vec<String>,
        /// Who asks, and what proves it.
        login: Option<(String, Secret)>,
        /// What keys of instances begin with.
        prefix: String,
    },
    /// Announcements of go-micro on the local network.
    Mdns {
        /// The domain they are in, without dots around it.
        domain: String,
    },
    /// The catalog of Consul.
    Consul {
        /// `host:port` of an agent.
        address: String,
        /// What is sent along as `X-Consul-Token`.
        token: Option<Secret>,
    },
    /// EndpointSlices of Kubernetes.
    #[cfg(feature = "kubernetes")]
    Kubernetes(Box<super::kubernetes::Cluster>),
}

impl Kind {
    /// The word for it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Etcd { .. } => "etcd",
            Self::Mdns { .. } => "mdns",
            Self::Consul { .. } => "consul",
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(_) => "kubernetes",
        }
    }

    /// Where it is, for people.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Self::File { path } => path.display().to_string(),
            Self::Etcd { addresses, .. } => addresses.join(","),
            Self::Mdns { domain } => format!("{domain}. on the local network"),
            Self::Consul { address, .. } => address.clone(),
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(cluster) => cluster.server.clone(),
        }
    }
}

impl BackendTable {
    /// With the place of each value in `text`, the file called `name`.
    #[must_use]
    pub fn written(self, span: Range<usize>, text: &str, name: &str) -> Written {
        let at = |span: Range<usize>| Some(place(text, name, span, String::new()));
        let texts = [
            ("kind", self.kind),
            ("name", self.name),
            ("path", self.path),
            ("user", self.user),
            ("password", self.password),
            ("token", self.token),
            ("prefix", self.prefix),
            ("domain", self.domain),
            ("protocol", self.protocol),
            ("namespace", self.namespace),
            ("selector", self.selector),
            ("port", self.port),
            ("ca", self.ca),
        ];
        let mut cells = Vec::new();
        for (key, value) in texts {
            let Some(value) = value else { continue };
            let span = value.span();
            cells.push(Cell { key, values: vec![value.into_inner()], at: at(span) });
        }
        if let Some(value) = self.address {
            let span = value.span();
            cells.push(Cell { key: "address", values: value.into_inner().0, at: at(span) });
        }
        if let Some(value) = self.loopback {
            let span = value.span();
            let values = vec![value.into_inner().to_string()];
            cells.push(Cell { key: "loopback", values, at: at(span) });
        }
        // The header of the table, not all of it.
        Written { cells, at: at(span.start..span.start) }
    }
}

/// What `raw` means.
///
/// # Errors
/// M4003 or M4002 with the place; M4001 for the short form of a flag.
pub fn read(raw: &Raw, origin: &Origin) -> Result<Vec<Backend>, Problem> {
    let written = match raw {
        Raw::Tables(written) => written.clone(),
        Raw::Text(text) => short(text),
        Raw::List(list) => short(&list.join(",")),
        Raw::Map(_) => Vec::new(),
    };
    let wrong = |place: &Option<Excerpt>, why: String| {
        let at = place.clone().map_or_else(|| origin.clone(), Origin::File);
        super::layers::invalid(KEY, &at, why)
    };
    if written.len() > MAX_BACKENDS {
        let place = &written[MAX_BACKENDS].at;
        return Err(wrong(place, format!("a node watches at most {MAX_BACKENDS} back ends")));
    }
    let (mut all, mut names) = (Vec::new(), BTreeSet::new());
    for table in &written {
        let backend = one(table).map_err(|(at, why)| wrong(&at, why))?;
        if !names.insert(backend.name.clone()) {
            let why = format!("two back ends are called {:?}: give one a name", backend.name);
            return Err(wrong(&table.at, why));
        }
        all.push(backend);
    }
    Ok(all)
}

/// How they are shown in one line; secrets are not.
#[must_use]
pub fn show(all: &[Backend]) -> String {
    let one = |backend: &Backend| format!("{}={}", backend.kind.word(), backend.kind.place());
    all.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// `KIND` or `KIND=ADDRESS`, with commas between.
fn short(text: &str) -> Vec<Written> {
    let cell = |key, value: &str| Cell { key, values: vec![value.trim().to_owned()], at: None };
    let one = |part: &str| {
        let (kind, rest) = part.split_once('=').map_or((part, None), |(a, b)| (a, Some(b)));
        let mut cells = vec![cell("kind", kind)];
        let where_to = if kind.trim() == "file" { "path" } else { "address" };
        cells.extend(rest.map(|rest| cell(where_to, rest)));
        Written { cells, at: None }
    };
    text.split(',').filter(|part| !part.trim().is_empty()).map(one).collect()
}

pub(super) type Wrong = (Option<Excerpt>, String);

/// Takes the values out of a table; what is left at the end does not belong there.
pub(super) struct Take<'a> {
    table: &'a Written,
    taken: BTreeSet<&'static str>,
}

impl<'a> Take<'a> {
    pub(super) fn of(table: &'a Written) -> Self {
        Self { table, taken: BTreeSet::new() }
    }

    pub(super) fn cell(&mut self, key: &'static str) -> Option<&'a Cell> {
        self.taken.insert(key);
        self.table.cells.iter().find(|cell| cell.key == key)
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<(&'a str, &'a Cell)> {
        let cell = self.cell(key)?;
        Some((cell.values.first().map_or("", |value| value.trim()), cell))
    }

    /// A mistake of the whole table.
    pub(super) fn wrong(&self, why: &str) -> Wrong {
        (self.table.at.clone(), why.to_owned())
    }

    fn needed(&mut self, key: &'static str, kind: &str) -> Result<(&'a str, &'a Cell), Wrong> {
        let missing = (self.table.at.clone(), format!("a back end of kind {kind} needs a {key}"));
        self.text(key).filter(|(text, _)| !text.is_empty()).ok_or(missing)
    }

    pub(super) fn secret(&mut self, key: &'static str) -> Result<Option<Secret>, Wrong> {
        let Some((text, cell)) = self.text(key) else { return Ok(None) };
        let read = secret::read(text).map_err(|why| (cell.at.clone(), why))?;
        if read.is_empty() {
            Err((cell.at.clone(), "it is empty".to_owned()))
        } else {
            Ok(Some(read))
        }
    }

    fn addresses(&mut self, default: Option<&str>, kind: &str) -> Result<Vec<String>, Wrong> {
        let Some(cell) = self.cell("address") else {
            let missing =
                || (self.table.at.clone(), format!("a back end of kind {kind} needs an address"));
            return default.map(|one| vec![one.to_owned()]).ok_or_else(missing);
        };
        if cell.values.is_empty() || cell.values.len() > MAX_ADDRESSES {
            return Err((cell.at.clone(), format!("1 to {MAX_ADDRESSES} addresses are expected")));
        }
        let each = cell.values.iter().map(|text| address(text.trim()));
        each.collect::<Result<_, _>>().map_err(|why| (cell.at.clone(), why))
    }
}

fn one(table: &Written) -> Result<Backend, Wrong> {
    let mut take = Take::of(table);
    let known = "file, etcd, mdns, consul or kubernetes";
    let no_kind = || (table.at.clone(), format!("a back end needs a kind: {known}"));
    let (word, kind_cell) = take.text("kind").ok_or_else(no_kind)?;
    let kind = match word {
        "file" => Kind::File { path: take.needed("path", "file")?.0.into() },
        "etcd" => etcd(&mut take)?,
        "mdns" => Kind::Mdns { domain: domain(&mut take)? },
        "consul" => {
            let mut addresses = take.addresses(Some(CONSUL), "consul")?;
            if addresses.len() > 1 {
                let why = "one address is expected: that of an agent".to_owned();
                return Err((take.cell("address").and_then(|cell| cell.at.clone()), why));
            }
            let address = addresses.pop().unwrap_or_else(|| CONSUL.to_owned());
            Kind::Consul { address, token: take.secret("token")? }
        }
        #[cfg(feature = "kubernetes")]
        "kubernetes" => Kind::Kubernetes(Box::new(super::kubernetes::read(&mut take)?)),
        #[cfg(not(feature = "kubernetes"))]
        "kubernetes" => {
            let why = "this micro was built without kubernetes: a feature of netd".to_owned();
            return Err((kind_cell.at.clone(), why));
        }
        other => return Err((kind_cell.at.clone(), format!("{other:?} is no kind: {known}"))),
    };
    let name = match take.text("name") {
        None => word.to_owned(),
        Some((text, cell)) => name(text).map_err(|why| (cell.at.clone(), why))?,
    };
    let protocol = match take.text("protocol") {
        None => Protocol::Http1,
        Some((text, cell)) => protocol(text)
            .ok_or_else(|| (cell.at.clone(), format!("{text:?} is no protocol: {PROTOCOLS}")))?,
    };
    let loopback = take.text("loopback").map(|(text, _)| text == "true");
    if let Some(left) = table.cells.iter().find(|cell| !take.taken.contains(cell.key)) {
        let why = format!("a back end of kind {word} has no {}", left.key);
        return Err((left.at.clone(), why));
    }
    Ok(Backend { name, kind, loopback, protocol })
}

fn etcd(take: &mut Take<'_>) -> Result<Kind, Wrong> {
    let addresses = take.addresses(None, "etcd")?;
    let user = take.text("user");
    let password = take.secret("password")?;
    let login = match (user, password) {
        (Some((user, _)), Some(password)) => Some((user.to_owned(), password)),
        (None, None) => None,
        (Some((_, cell)), None) => {
            return Err((cell.at.clone(), "a user needs a password: file:PATH or env:NAME".into()));
        }
        (None, Some(_)) => {
            let at = take.cell("password").and_then(|cell| cell.at.clone());
            return Err((at, "a password needs a user".into()));
        }
    };
    let prefix = match take.text("prefix") {
        None => PREFIX.to_owned(),
        Some((text, _)) if text.starts_with('/') && text.ends_with('/') && text.len() > 2 => {
            text.to_owned()
        }
        Some((_, cell)) => {
            return Err((cell.at.clone(), format!("a prefix begins and ends with /: {PREFIX}")));
        }
    };
    Ok(Kind::Etcd { addresses, login, prefix })
}

fn domain(take: &mut Take<'_>) -> Result<String, Wrong> {
    let Some((text, cell)) = take.text("domain") else { return Ok(DOMAIN.to_owned()) };
    let text = text.trim_end_matches('.');
    let fits = !text.is_empty()
        && text.len() <= MAX_NAME
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.');
    fits.then(|| text.to_owned())
        .ok_or_else(|| (cell.at.clone(), "a domain has letters, digits and '-': micro".to_owned()))
}

/// `host:port`, also with `http://` before it.
fn address(text: &str) -> Result<String, String> {
    if text.starts_with("https://") {
        return Err(format!("{text:?}: TLS to back ends is not spoken; use one on this machine"));
    }
    let bare = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    let fits = bare.rsplit_once(':').is_some_and(|(host, port)| {
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_[]:%".contains(c);
        !host.is_empty()
            && (bracketed || !host.contains(':'))
            && host.chars().all(allowed)
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if fits { Ok(bare.to_owned()) } else { Err(format!("{text:?} is no address: write host:port")) }
}

pub(super) fn name(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if text.is_empty() || text.len() > MAX_NAME || !text.chars().all(allowed) {
        return Err(format!("a name has 1 to {MAX_NAME} letters, digits, '.', '-' and '_'"));
    }
    Ok(text.to_owned())
}

/// What there is, for people.
pub const PROTOCOLS: &str = "grpc, http, http2, mucp, tcp, tls or udp";

/// The protocol of a word.
#[must_use]
pub fn protocol(word: &str) -> Option<Protocol> {
    Some(match word {
        "grpc" => Protocol::Grpc,
        "http" | "http1" => Protocol::Http1,
        "http2" | "h2c" => Protocol::Http2,
        "mucp" => Protocol::Mucp,
        "tcp" => Protocol::Tcp,
        "tls" => Protocol::Tls,
        "udp" => Protocol::Udp,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file;
    use crate::error::Exit;

    fn of(text: &str) -> Result<Vec<Backend>, Problem> {
        let layer = file::parse(text, "m.toml")?;
        let (raw, origin) = layer.get(KEY).unwrap();
        read(raw, origin)
    }

    #[test]
    fn each_kind_is_read_with_what_belongs_to_it() {
        let all = of("[[registry.backend]]\nkind = \"file\"\npath = \"/s.toml\"\n\
                      [[registry.backend]]\nkind = \"etcd\"\nname = \"prod\"\n\
                      address = [\"a:2379\", \"http://[::1]:2379/\"]\nuser = \"u\"\npassword = \"p\"\n\
                      [[registry.backend]]\nkind = \"mdns\"\n\
                      [[registry.backend]]\nkind = \"consul\"\ntoken = \"t\"\nprotocol = \"grpc\"\n")
            .unwrap();
        let names: Vec<_> = all.iter().map(|one| (one.name.as_str(), one.kind.word())).collect();
        let wanted = [("file", "file"), ("prod", "etcd"), ("mdns", "mdns"), ("consul", "consul")];
        assert_eq!(names, wanted);
        assert_eq!(all[1].kind.place(), "a:2379,[::1]:2379");
        assert_eq!((all[3].kind.place().as_str(), all[3].protocol), (CONSUL, Protocol::Grpc));
        let shown = show(&all);
        assert!(shown.contains("etcd=a:2379,[::1]:2379") && !shown.contains("\"p\""), "{shown}");
    }

    #[test]
    fn what_does_not_fit_is_shown_where_it_stands() {
        for (text, note, line) in [
            ("name = \"x\"", "needs a kind", 1),
            ("kind = \"zoo\"", "is no kind: file, etcd", 2),
            ("kind = \"file\"", "needs a path", 1),
            ("kind = \"etcd\"", "needs an address", 1),
            ("kind = \"etcd\"\naddress = \"a\"", "write host:port", 3),
            ("kind = \"etcd\"\naddress = \"https://a:1\"", "TLS", 3),
            ("kind = \"etcd\"\naddress = []", "1 to 16", 3),
            ("kind = \"etcd\"\naddress = \"a:1\"\nuser = \"u\"", "needs a password", 4),
            ("kind = \"etcd\"\naddress = \"a:1\"\npassword = \"p\"", "needs a user", 4),
            ("kind = \"etcd\"\naddress = \"a:1\"\nprefix = \"x\"", "begins and ends with /", 4),
            ("kind = \"mdns\"\npath = \"/x\"", "of kind mdns has no path", 3),
            ("kind = \"mdns\"\nname = \"a b\"", "a name has", 3),
            ("kind = \"mdns\"\nprotocol = \"x\"", "is no protocol", 3),
            ("kind = \"consul\"\ntoken = \"env:NO_SUCH\"", "not set", 3),
            ("kind = \"kubernetes\"", "needs an address", 1),
            ("kind = \"kubernetes\"\naddress = \"k:6443\"", "https://HOST:PORT", 3),
            ("kind = \"kubernetes\"\naddress = \"https://k:6443\"", "needs a ca", 3),
            ("kind = \"kubernetes\"\naddress = \"http://k\"\nca = \"/ca\"", "no certificate", 4),
            ("kind = \"kubernetes\"\naddress = \"http://k\"\nnamespace = \"A\"", "no name of", 4),
        ] {
            let problem = of(&format!("[[registry.backend]]\n{text}\n")).unwrap_err();
            let shown = problem.to_string();
            assert!(shown.contains(note) && shown.contains(&format!("m.toml:{line}:")), "{shown}");
            assert_eq!(problem.exit, Exit::Config);
        }
        let twice =
            "[[registry.backend]]\nkind = \"mdns\"\n[[registry.backend]]\nkind = \"mdns\"\n";
        assert!(of(twice).unwrap_err().to_string().contains("give one a name"));
        let unknown = of("[[registry.backend]]\nkid = \"mdns\"\n").unwrap_err();
        assert_eq!(&*unknown.code, "M4002");
    }

    #[test]
    fn there_is_a_short_form_for_the_environment() {
        let raw = Raw::Text("mdns, etcd=10.0.0.7:2379,file=/s.toml".to_owned());
        let origin = Origin::Environment("MICRO_NODE_REGISTRY_BACKEND".to_owned());
        let words: Vec<_> = read(&raw, &origin).unwrap().iter().map(|b| b.kind.place()).collect();
        assert_eq!(words, ["micro. on the local network", "10.0.0.7:2379", "/s.toml"]);
        let wrong = read(&Raw::Text("zoo".to_owned()), &origin).unwrap_err();
        assert!(wrong.to_string().contains("MICRO_NODE_REGISTRY_BACKEND"), "{wrong}");
    }
}
