//! What one value means: from its text to its type, with the words for a person when it has none.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use proto::LabelSet;

use super::{Address, LogFormat, StoreBackend, Users, duration};

/// The longest name of a node: it is a file name and a DNS label.
pub const MAX_NODE_NAME: usize = 63;
/// The longest name of a network.
const MAX_NETWORK_NAME: usize = 63;
/// The longest region.
const MAX_REGION: usize = 63;
/// Where users of this machine have names; those of a directory service are given by number.
const PASSWD: &str = "/etc/passwd";

/// A value as it was given, in whichever layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Raw {
    /// One text.
    Text(String),
    /// Several.
    List(Vec<String>),
    /// Keys with values.
    Map(BTreeMap<String, String>),
    /// Back ends or bridges, each with the places of its values.
    Tables(Vec<super::backend::Written>),
}

impl Raw {
    /// As one text.
    ///
    /// # Errors
    /// Never for what [`super::file`] reads.
    fn text(&self) -> Result<&str, String> {
        match self {
            Self::Text(text) => Ok(text.trim()),
            Self::List(_) | Self::Map(_) | Self::Tables(_) => {
                Err("one text is expected".to_owned())
            }
        }
    }

    /// As a list; a text is taken apart at its commas.
    pub(super) fn list(&self) -> Vec<&str> {
        match self {
            Self::Text(text) => split(text),
            Self::List(list) => list.iter().map(|one| one.trim()).collect(),
            Self::Map(_) | Self::Tables(_) => Vec::new(),
        }
    }
}

fn split(text: &str) -> Vec<&str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect()
}

/// A name of a node.
///
/// # Errors
/// What is wrong with it.
pub fn node_name(raw: &Raw) -> Result<String, String> {
    name(raw.text()?, "the name of a node", MAX_NODE_NAME)
}

/// A name of a network.
///
/// # Errors
/// What is wrong with it.
pub fn network_name(raw: &Raw) -> Result<String, String> {
    name(raw.text()?, "the name of a network", MAX_NETWORK_NAME)
}

/// Both names become names of files, so nothing that a path could mean is in them.
fn name(text: &str, what: &str, max: usize) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !starts || text.len() > max || !text.chars().all(allowed) {
        return Err(format!(
            "{what} has 1 to {max} letters, digits, '.', '-' and '_', and begins with a letter or digit"
        ));
    }
    Ok(text.to_owned())
}

/// A region: `eu/fra`, `home`.
///
/// # Errors
/// What is wrong with it.
pub fn region(raw: &Raw) -> Result<String, String> {
    let text = raw.text()?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/');
    if text.is_empty() || text.len() > MAX_REGION || !text.chars().all(allowed) {
        return Err(format!(
            "a region has 1 to {MAX_REGION} letters, digits, '.', '-', '_' and '/': eu/fra, home"
        ));
    }
    Ok(text.to_owned())
}

/// Where records of programs are kept.
///
/// # Errors
/// What there is instead.
pub fn store_backend(raw: &Raw) -> Result<StoreBackend, String> {
    match raw.text()? {
        "disk" => Ok(StoreBackend::Disk),
        "memory" => Ok(StoreBackend::Memory),
        other => Err(format!("{other:?} is no backend: disk, memory")),
    }
}

/// Labels, as a table or as `key=value,key=value`.
///
/// # Errors
/// The first that is no label.
pub fn labels(raw: &Raw) -> Result<LabelSet, String> {
    let pairs: Vec<(String, String)> = match raw {
        Raw::Map(map) => map.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        Raw::Text(text) => split(text).into_iter().map(label).collect::<Result<_, _>>()?,
        Raw::List(list) => list.iter().map(|one| label(one)).collect::<Result<_, _>>()?,
        Raw::Tables(_) => return Err("labels are expected".to_owned()),
    };
    if pairs.len() > proto::label::MAX_LABELS {
        return Err(format!("there are at most {} labels", proto::label::MAX_LABELS));
    }
    for (key, value) in &pairs {
        let key_fits = !key.is_empty()
            && key.len() <= proto::label::MAX_KEY
            && key.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
        if !key_fits {
            return Err(format!("{key:?} is no key: letters, digits, '.', '_', '-', '/'"));
        }
        let value_fits = value.len() <= proto::label::MAX_VALUE
            && value.chars().all(|c| !c.is_control() && c != ',');
        if !value_fits {
            return Err(format!(
                "the value of {key:?} is too long, or has a comma or control in it"
            ));
        }
    }
    Ok(pairs.into_iter().collect())
}

/// One `key=value`.
///
/// # Errors
/// That it is none.
pub fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| format!("{text:?} is no label: write key=value"))?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// Users by name or number, or `*` for all of them.
///
/// # Errors
/// The first that is none.
pub fn users(raw: &Raw) -> Result<Users, String> {
    let given = raw.list();
    if given.contains(&"*") {
        return Ok(Users::Everybody);
    }
    let known = std::fs::read_to_string(PASSWD).unwrap_or_default();
    let uids = given.into_iter().map(|user| user_id(user, &known));
    uids.collect::<Result<_, _>>().map(Users::These)
}

fn user_id(user: &str, known: &str) -> Result<u32, String> {
    if let Ok(uid) = user.parse() {
        return Ok(uid);
    }
    // name:password:uid:… (passwd(5))
    let mut lines = known.lines().map(|line| line.split(':'));
    let uid = lines.find_map(|mut line| line.next().filter(|name| *name == user).and(line.nth(1)));
    let uid = uid.and_then(|uid| uid.parse().ok());
    uid.ok_or_else(|| format!("there is no user {user:?} in {PASSWD}: write the number, or *"))
}

/// As they would be written.
#[must_use]
pub fn show_users(users: &Users) -> String {
    match users {
        Users::Everybody => "*".to_owned(),
        Users::These(uids) => uids.iter().map(u32::to_string).collect::<Vec<_>>().join(","),
    }
}

/// One address to listen on: `127.0.0.1:8081`, `[::]:8085`, or `:8085` for every address.
///
/// # Errors
/// What an address looks like.
pub fn address(raw: &Raw) -> Result<Address, String> {
    socket_address(raw.text()?)
}

/// One or more addresses to listen on.
///
/// # Errors
/// As [`address`].
pub fn addresses(raw: &Raw) -> Result<Vec<Address>, String> {
    let all: Vec<_> = raw.list().into_iter().map(socket_address).collect::<Result<_, _>>()?;
    if all.is_empty() { Err("at least one address is needed".to_owned()) } else { Ok(all) }
}

fn socket_address(text: &str) -> Result<Address, String> {
    let wrong =
        || format!("{text:?} is no address to listen on: write 127.0.0.1:8081 or [::]:8085");
    let at = match text.strip_prefix(':') {
        Some(port) => {
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, port.parse::<u16>().map_err(|_| wrong())?))
        }
        None => text.parse().map_err(|_| wrong())?,
    };
    Ok(Address { at, asked: true })
}

/// Places to dial: `host`, `host:port`, an SRV name.
///
/// # Errors
/// The first that is none.
pub fn seeds(raw: &Raw) -> Result<Vec<String>, String> {
    raw.list()
        .into_iter()
        .map(|seed| {
            let fits = !seed.is_empty()
                && seed.len() <= 300
                && seed.chars().all(|c| c.is_ascii_alphanumeric() || "._-:[]%".contains(c));
            fits.then(|| seed.to_owned())
                .ok_or_else(|| format!("{seed:?} is no address: write host or host:port"))
        })
        .collect()
}

/// A time.
///
/// # Errors
/// As [`duration::parse`].
pub fn time(raw: &Raw) -> Result<Duration, String> {
    duration::parse(raw.text()?)
}

/// A time that grants may be valid: between a minute and a year.
///
/// # Errors
/// As [`duration::parse`], and outside of that.
pub fn grant_ttl(raw: &Raw) -> Result<Duration, String> {
    let time = time(raw)?;
    let bounds = Duration::from_secs(60)..=Duration::from_secs(365 * 86_400);
    if bounds.contains(&time) {
        Ok(time)
    } else {
        Err("a grant is valid between 1m and 365d".to_owned())
    }
}

/// A number of calls.
///
/// # Errors
/// That it is none.
pub fn count(raw: &Raw) -> Result<u32, String> {
    let text = raw.text()?;
    let number = text.parse().ok().filter(|number| (1..=1_000_000).contains(number));
    number.ok_or_else(|| format!("{text:?} is not a number from 1 to 1000000"))
}

/// A level or directives.
///
/// # Errors
/// What is wrong with them.
pub fn log_level(raw: &Raw) -> Result<String, String> {
    let text = raw.text()?;
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!(
            "{text:?} is no level: error, warn, info, debug, trace, or info,router=debug"
        )),
    }
}

/// How log lines look.
///
/// # Errors
/// That it is none of the three.
pub fn log_format(raw: &Raw) -> Result<LogFormat, String> {
    match raw.text()? {
        "auto" => Ok(LogFormat::Auto),
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => Err(format!("{other:?} is no format: auto, text or json")),
    }
}

/// The short host name, made to fit [`node_name`]; `node` when nothing of it does.
#[must_use]
pub fn host_name() -> String {
    let uname = rustix::system::uname();
    let text = uname.nodename().to_string_lossy().into_owned();
    fit(text.split('.').next().unwrap_or_default(), "node")
}

/// The user, made to fit a name; the number when there is no name.
#[must_use]
pub fn user_name() -> String {
    let uid = rustix::process::getuid().as_raw();
    let text = std::env::var("USER").unwrap_or_default();
    fit(&text, if uid == 0 { "root" } else { "user" })
}

fn fit(text: &str, otherwise: &str) -> String {
    let kept: String = text
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        .take(MAX_NODE_NAME / 2)
        .collect();
    let kept = kept.trim_start_matches(['-', '_']);
    if kept.is_empty() { otherwise.to_owned() } else { kept.to_ascii_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Raw {
        Raw::Text(text.to_owned())
    }

    #[test]
    fn names_that_could_leave_their_directory_are_refused() {
        for bad in ["", ".", "..", "../x", "a/b", "a b", "-x", "a\u{1b}[m", &"x".repeat(64)] {
            assert!(node_name(&text(bad)).is_err(), "{bad:?}");
            assert!(network_name(&text(bad)).is_err(), "{bad:?}");
        }
        assert_eq!(node_name(&text("fra-1")), Ok("fra-1".to_owned()));
    }

    #[test]
    fn addresses_are_read_in_every_usual_form() {
        for (given, meant) in
            [(":8085", "[::]:8085"), ("127.0.0.1:0", "127.0.0.1:0"), ("[::1]:81", "[::1]:81")]
        {
            assert_eq!(address(&text(given)).unwrap().at, meant.parse().unwrap());
        }
        for bad in ["", "8085", "localhost:1", "127.0.0.1", "127.0.0.1:70000", "::1:80:"] {
            assert!(address(&text(bad)).is_err(), "{bad:?}");
        }
        assert_eq!(addresses(&text("127.0.0.1:1, [::1]:2")).unwrap().len(), 2);
    }

    #[test]
    fn labels_are_a_table_or_pairs() {
        let table = Raw::Map([("tier".to_owned(), "gate".to_owned())].into());
        assert_eq!(labels(&table), labels(&text("tier=gate")));
        assert!(labels(&text("tier")).is_err());
        assert!(labels(&text("=x")).is_err());
    }

    #[test]
    fn users_are_named_numbered_or_all() {
        let known = "root:x:0:0:root:/root:/bin/sh\nada:x:1001:1001::/home/ada:/bin/sh\n";
        assert_eq!(user_id("ada", known), Ok(1001));
        assert_eq!(user_id("77", known), Ok(77));
        assert!(user_id("x", known).unwrap_err().contains("write the number"));
        assert_eq!(users(&text("root, 77")), Ok(Users::These(vec![0, 77])));
        assert_eq!(users(&text("*")).map(|all| show_users(&all)), Ok("*".to_owned()));
    }

    #[test]
    fn levels_and_formats_are_closed_lists() {
        assert!(log_format(&text("xml")).is_err());
        assert!(log_level(&text("info,router=debug")).is_ok());
        assert!(log_level(&text("router=loud")).is_err());
        assert!(count(&text("0")).is_err());
    }
}
