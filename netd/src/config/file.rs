//! The configuration file as it was written. An unknown key is an error with a suggestion.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::backend::{self, BackendTable};
use super::bridge::{self, BridgeTable};
use super::layers::{Layer, Origin};
use super::stream::{self, StreamTable};
use super::values::Raw;
use crate::error::{Excerpt, Exit, Problem};

/// The largest file that is read.
const MAX_FILE: u64 = 1024 * 1024;
/// How unlike a key may be and still be suggested: 1 is the same.
const ALIKE: f64 = 0.75;

/// Keys of which earlier texts told, and what does it instead.
const GONE: [(&str, &str); 1] =
    [("node.roles", "the ticket gives a node its roles: micro network invite --role relay")];

/// The whole file. Every key may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// This node.
    pub node: NodeSection,
    /// The network and how to reach it.
    pub network: NetworkSection,
    /// The faces turned to programs.
    pub proxy: ProxySection,
    /// Records of programs.
    pub store: StoreSection,
    /// Where names are asked for.
    pub dns: DnsSection,
    /// Registries of others.
    pub registry: RegistrySection,
    /// Topics.
    pub broker: BrokerSection,
    /// Health and metrics.
    pub observe: ObserveSection,
    /// Log lines.
    pub log: LogSection,
    /// Stopping.
    pub drain: DrainSection,
    /// Membership of others, on an issuer.
    pub identity: IdentitySection,
}

/// `[node]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is told in config::layers::KEYS")]
pub struct NodeSection {
    pub name: Option<Spanned<String>>,
    pub region: Option<Spanned<String>>,
    pub labels: Option<Spanned<BTreeMap<String, String>>>,
}

/// `[network]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is told in config::layers::KEYS")]
pub struct NetworkSection {
    pub name: Option<Spanned<String>>,
    pub address: Option<Spanned<Strings>>,
    pub advertise: Option<Spanned<Strings>>,
    pub labels: Option<Spanned<BTreeMap<String, String>>>,
    pub join: Option<Spanned<Strings>>,
    pub ticket: Option<Spanned<String>>,
}

/// `[proxy]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxySection {
    /// Whose programs are served, beside those of the node's own user and of root.
    pub allow_users: Option<Spanned<Strings>>,
    /// HTTP/1, HTTP/2 and gRPC, on one port.
    pub http: HttpSection,
    /// Where programs look for etcd.
    pub etcd: EtcdSection,
}

/// `[proxy.http]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is told in config::layers::KEYS")]
pub struct HttpSection {
    pub address: Option<Spanned<String>>,
    pub max_inflight: Option<Spanned<i64>>,
}

/// `[proxy.etcd]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is told in config::layers::KEYS")]
pub struct EtcdSection {
    pub address: Option<Spanned<String>>,
}

/// `[store]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is told in config::layers::KEYS")]
pub struct StoreSection {
    pub backend: Option<Spanned<String>>,
}

/// `[dns]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is told in config::layers::KEYS")]
pub struct DnsSection {
    pub address: Option<Spanned<String>>,
}

/// `[registry]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistrySection {
    /// Those that are watched.
    pub backend: Option<Spanned<Vec<Spanned<BackendTable>>>>,
}

/// `[broker]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is told in config::layers::KEYS")]
pub struct BrokerSection {
    pub address: Option<Spanned<String>>,
    pub token: Option<Spanned<Strings>>,
    pub nkey: Option<Spanned<Strings>>,
    pub bridge: Option<Spanned<BTreeMap<Spanned<String>, BridgeTable>>>,
    pub stream: Option<Spanned<BTreeMap<Spanned<String>, StreamTable>>>,
}

/// `[observe]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is told in config::layers::KEYS")]
pub struct ObserveSection {
    pub address: Option<Spanned<String>>,
}

/// `[log]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is told in config::layers::KEYS")]
pub struct LogSection {
    pub level: Option<Spanned<String>>,
    pub format: Option<Spanned<String>>,
}

/// `[drain]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is told in config::layers::KEYS")]
pub struct DrainSection {
    pub grace: Option<Spanned<String>>,
}

/// `[identity]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is told in config::layers::KEYS")]
pub struct IdentitySection {
    pub grant_ttl: Option<Spanned<String>>,
}

/// One text, or a list of them.
#[derive(Debug, Default)]
pub struct Strings(pub Vec<String>);

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Strings;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E>(self, text: &str) -> Result<Strings, E> {
                Ok(Strings(vec![text.to_owned()]))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> Result<Strings, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = list.next_element()? {
                    all.push(one);
                }
                Ok(Strings(all))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Reads the file at `path`.
///
/// # Errors
/// M4002 for a key that does not exist, M4003 for a value of the wrong type, M4004 for a file that
/// cannot be read or is no TOML; each with the place.
pub fn read(path: &Path) -> Result<Layer, Problem> {
    let unreadable = |why: String| {
        let what = format!("the configuration file {} cannot be read", path.display());
        Problem::new("M4004", Exit::Config, what)
            .why(why)
            .attempt("micro config path", "where files are looked for")
    };
    let length = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if length > MAX_FILE {
        return Err(unreadable(format!("it has more than {MAX_FILE} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    parse(&text, &path.display().to_string())
}

/// Reads the text of a file called `name`.
///
/// # Errors
/// As [`read`].
pub fn parse(text: &str, name: &str) -> Result<Layer, Problem> {
    let file: File = toml::from_str(text).map_err(|error| refused(text, name, &error))?;
    Ok(file.into_layer(text, name))
}

impl File {
    fn into_layer(self, text: &str, name: &str) -> Layer {
        let mut layer = Layer::default();
        let mut put = |key: &'static str, span: Range<usize>, raw: Raw| {
            layer.put(key, raw, Origin::File(place(text, name, span, String::new())));
        };
        let texts = [
            ("node.name", self.node.name),
            ("node.region", self.node.region),
            ("network.name", self.network.name),
            ("network.ticket", self.network.ticket),
            ("proxy.http.address", self.proxy.http.address),
            ("proxy.etcd.address", self.proxy.etcd.address),
            ("store.backend", self.store.backend),
            ("dns.address", self.dns.address),
            ("broker.address", self.broker.address),
            ("observe.address", self.observe.address),
            ("log.level", self.log.level),
            ("log.format", self.log.format),
            ("drain.grace", self.drain.grace),
            ("identity.grant_ttl", self.identity.grant_ttl),
        ];
        for (key, value) in texts {
            if let Some(value) = value {
                put(key, value.span(), Raw::Text(value.into_inner()));
            }
        }
        let lists = [
            ("proxy.allow_users", self.proxy.allow_users),
            ("network.address", self.network.address),
            ("network.advertise", self.network.advertise),
            ("network.join", self.network.join),
            ("broker.token", self.broker.token),
            ("broker.nkey", self.broker.nkey),
        ];
        for (key, value) in lists {
            if let Some(value) = value {
                put(key, value.span(), Raw::List(value.into_inner().0));
            }
        }
        let maps = [("node.labels", self.node.labels), ("network.labels", self.network.labels)];
        for (key, value) in maps {
            if let Some(value) = value {
                put(key, value.span(), Raw::Map(value.into_inner()));
            }
        }
        if let Some(value) = self.registry.backend {
            let span = value.span();
            let tables = value.into_inner().into_iter();
            let written = tables.map(|table| {
                let span = table.span();
                table.into_inner().written(span, text, name)
            });
            put(backend::KEY, span, Raw::Tables(written.collect()));
        }
        if let Some(value) = self.broker.bridge {
            let span = value.span();
            let tables = value.into_inner().into_iter();
            let written = tables.map(|(key, table)| table.written(key, text, name));
            put(bridge::KEY, span, Raw::Tables(written.collect()));
        }
        if let Some(value) = self.broker.stream {
            let span = value.span();
            let tables = value.into_inner().into_iter();
            let written = tables.map(|(key, table)| table.written(key, text, name));
            put(stream::KEY, span, Raw::Tables(written.collect()));
        }
        if let Some(value) = self.proxy.http.max_inflight {
            let span = value.span();
            put("proxy.http.max_inflight", span, Raw::Text(value.into_inner().to_string()));
        }
        layer
    }
}

/// Turns what the parser says into what a person reads.
fn refused(text: &str, name: &str, error: &toml::de::Error) -> Problem {
    let message = error.message().trim();
    let span = error.span().unwrap_or(0..0);
    let first = message.lines().next().unwrap_or_default();
    let check = |problem: Problem| problem.attempt("micro config check", "");
    if let Some(key) = quoted(first).next().filter(|_| first.starts_with("unknown field")) {
        let full = full_key(text, &span, key);
        if let Some((_, instead)) = GONE.iter().find(|(gone, _)| *gone == full) {
            let what = format!("config: there is no key \"{full}\" any more");
            let at = place(text, name, span, (*instead).to_owned());
            return check(Problem::new("M4002", Exit::Config, what).at(at));
        }
        let near = quoted(first)
            .skip(1)
            .max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)));
        let note = match near {
            Some(near) if strsim::jaro_winkler(near, key) >= ALIKE => {
                format!("did you mean \"{near}\"?")
            }
            Some(_) | None => {
                let known: Vec<_> = quoted(first).skip(1).collect();
                format!("known here: {}", known.join(", "))
            }
        };
        let what = format!("config: unknown key \"{full}\"");
        return check(Problem::new("M4002", Exit::Config, what).at(place(text, name, span, note)));
    }
    let wrong_type = first.starts_with("invalid type") || first.starts_with("invalid value");
    let (code, what) = if wrong_type {
        ("M4003", "config: a value of the wrong type")
    } else {
        ("M4004", "config: this is not TOML")
    };
    let note = message.replace('\n', ", ");
    check(Problem::new(code, Exit::Config, what).at(place(text, name, span, note)))
}

/// What stands between backticks.
pub(crate) fn quoted(message: &str) -> impl Iterator<Item = &str> {
    message.split('`').skip(1).step_by(2)
}

/// The key with the section it stands in: the header above it, or around it.
fn full_key(text: &str, span: &Range<usize>, key: &str) -> String {
    let start = text[..span.start].rfind('\n').map_or(0, |at| at + 1);
    let line = text[start..].lines().next().unwrap_or_default().trim();
    if let Some(header) = line.strip_prefix('[') {
        let header = header.trim_start_matches('[').split(']').next().unwrap_or_default();
        let until = header.find(key).unwrap_or(0);
        return format!("{}{key}", &header[..until]);
    }
    let header = text[..start]
        .lines()
        .rev()
        .filter_map(|line| line.trim().strip_prefix('['))
        .find_map(|line| line.trim_start_matches('[').split(']').next());
    header.map_or_else(|| key.to_owned(), |header| format!("{}.{key}", header.trim()))
}

/// The line of `span`, underlined.
pub(crate) fn place(text: &str, name: &str, span: Range<usize>, note: String) -> Excerpt {
    let at = span.start.min(text.len());
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[start..].lines().next().unwrap_or_default();
    let marked = text[at..span.end.clamp(at, text.len())].lines().next().unwrap_or_default();
    Excerpt {
        file: name.to_owned(),
        line: text[..start].matches('\n').count() + 1,
        column: text[start..at].chars().count() + 1,
        text: line.to_owned(),
        width: marked.chars().count().max(1),
        note,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_shown_where_it_stands_with_the_nearest_known_one() {
        let text = "# a comment\n[network]\nname = \"acme\"\nadress = \"[::]:8085\"\n";
        let problem = parse(text, "micro.toml").unwrap_err();
        assert_eq!(
            problem.to_string(),
            "error[M4002]: config: unknown key \"network.adress\"\n\
             \x20 --> micro.toml:4:1\n\
             \x20  4 | adress = \"[::]:8085\"\n\
             \x20    | ^^^^^^ did you mean \"address\"?\n\
             \x20 try   micro config check"
        );
        assert_eq!(problem.exit, Exit::Config);
    }

    #[test]
    fn unknown_sections_are_named_whole() {
        for (text, key) in [
            ("[netwrk]\nname = \"x\"", "netwrk"),
            ("[proxy.htp]\naddress = \"x\"", "proxy.htp"),
            ("colour = 1", "colour"),
            ("[node]\nname = \"a\"\n[log]\nlevle = \"info\"", "log.levle"),
        ] {
            let what = parse(text, "f").unwrap_err().what;
            assert_eq!(what, format!("config: unknown key \"{key}\""), "{text}");
        }
    }

    #[test]
    fn a_key_that_is_gone_says_what_does_it_instead() {
        let problem = parse("[node]\nname = \"a\"\nroles = [\"relay\"]\n", "f").unwrap_err();
        let text = problem.to_string();
        assert_eq!((&*problem.code, problem.exit), ("M4002", Exit::Config));
        assert!(text.contains("--> f:3:1") && text.contains("invite --role relay"), "{text}");
    }

    #[test]
    fn what_is_no_toml_and_what_has_the_wrong_type_are_told_apart() {
        assert_eq!(parse("[node", "f").unwrap_err().code, "M4004");
        assert_eq!(parse("[node]\nname = 3", "f").unwrap_err().code, "M4003");
        assert_eq!(parse("[network]\naddress = [1]", "f").unwrap_err().code, "M4003");
    }

    #[test]
    fn one_address_and_several_are_both_fine() {
        for text in ["[network]\naddress = \"[::]:1\"", "[network]\naddress = [\"[::]:1\"]"] {
            let layer = parse(text, "f").unwrap();
            let (raw, _) = layer.get("network.address").unwrap();
            assert_eq!(raw, &Raw::List(vec!["[::]:1".to_owned()]));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ -~\\n\u{e4}\u{1b}]{0,120}") {
            let _ = parse(&text, "f");
        }
    }
}
