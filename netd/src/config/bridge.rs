//! `[broker.bridge.NAME]`: servers of NATS that topics are carried to and from.
//!
//! Patterns are written as both sides share them; what stands before them on one side only is a
//! prefix of that side. Behind a pattern, after a blank, may stand the queue group that is shared with
//! the other side: `jobs.> workers`.

use std::path::PathBuf;
use std::str::FromStr as _;

use proto::topic::{QueueGroup, Topic, TopicPattern};
use serde::Deserialize;
use toml::Spanned;

use super::backend::{Cell, Take, Written, Wrong, name};
use super::file::{Strings, place};
use super::layers::Origin;
use super::secret::Secret;
use super::values::Raw;
use crate::error::{Excerpt, Problem};

/// The key of all of them.
pub const KEY: &str = "broker.bridge";
/// Bridges of one node.
const MAX_BRIDGES: usize = 16;
/// Addresses of one bridge.
const MAX_URLS: usize = 16;
/// Patterns of one bridge in one direction.
const MAX_PATTERNS: usize = 256;
/// The longest name of a cluster.
const MAX_CLUSTER: usize = 63;

/// A table as it was written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is told in docs/topics.md")]
pub struct BridgeTable {
    pub url: Option<Spanned<Strings>>,
    pub publish: Option<Spanned<Strings>>,
    pub subscribe: Option<Spanned<Strings>>,
    pub prefix: Option<Spanned<String>>,
    pub topic_prefix: Option<Spanned<String>>,
    pub cluster: Option<Spanned<String>>,
    pub credentials: Option<Spanned<String>>,
    pub nkey: Option<Spanned<String>>,
    pub token: Option<Spanned<String>>,
    pub user: Option<Spanned<String>>,
    pub password: Option<Spanned<String>>,
    pub ca: Option<Spanned<String>>,
    pub cert: Option<Spanned<String>>,
    pub key: Option<Spanned<String>>,
}

/// A bridge, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// What it is called in the log and in metrics.
    pub name: String,
    /// Servers of one cluster; one is used, another when it fails.
    pub urls: Vec<String>,
    /// What goes from the network to NATS.
    pub publish: Vec<Carried>,
    /// What comes from NATS into the network.
    pub subscribe: Vec<Carried>,
    /// What stands before it on NATS, without a dot behind it.
    pub prefix: Option<String>,
    /// What stands before it in the network.
    pub topic_prefix: Option<String>,
    /// What the cluster is called, in place of what it says itself.
    pub cluster: Option<String>,
    /// Who asks.
    pub login: Login,
    /// Who may have signed the certificate of the server; `None`: who this machine trusts.
    pub ca: Option<PathBuf>,
    /// The certificate that the bridge shows, and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// One pattern, as both sides share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Which topics.
    pub pattern: TopicPattern,
    /// The queue group whose members on both sides share the messages.
    pub queue: Option<QueueGroup>,
}

/// What proves who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// Nothing.
    Nobody,
    /// A token.
    Token(Secret),
    /// A name and a password.
    User(String, Secret),
    /// The seed of a key.
    Key(Secret),
    /// The text of a credentials file: a token that is signed, and the seed of its key.
    Credentials(Secret),
}

impl BridgeTable {
    /// With the place of each value in `text`, the file called `name`; `key` names the bridge.
    #[must_use]
    pub fn written(self, key: Spanned<String>, text: &str, name: &str) -> Written {
        let at = |span: std::ops::Range<usize>| Some(place(text, name, span, String::new()));
        let table = at(key.span());
        let mut cells =
            vec![Cell { key: "name", values: vec![key.into_inner()], at: table.clone() }];
        let texts = [
            ("prefix", self.prefix),
            ("topic_prefix", self.topic_prefix),
            ("cluster", self.cluster),
            ("credentials", self.credentials),
            ("nkey", self.nkey),
            ("token", self.token),
            ("user", self.user),
            ("password", self.password),
            ("ca", self.ca),
            ("cert", self.cert),
            ("key", self.key),
        ];
        for (key, value) in texts {
            let Some(value) = value else { continue };
            let span = value.span();
            cells.push(Cell { key, values: vec![value.into_inner()], at: at(span) });
        }
        let lists = [("url", self.url), ("publish", self.publish), ("subscribe", self.subscribe)];
        for (key, value) in lists {
            let Some(value) = value else { continue };
            let span = value.span();
            cells.push(Cell { key, values: value.into_inner().0, at: at(span) });
        }
        Written { cells, at: table }
    }
}

/// What `raw` means. Those named in `used` are there for streams, and need carry nothing.
///
/// # Errors
/// M4003 with the place.
pub fn read(raw: &Raw, origin: &Origin, used: &[&str]) -> Result<Vec<Bridge>, Problem> {
    let wrong = |place: &Option<Excerpt>, why: String| {
        let at = place.clone().map_or_else(|| origin.clone(), Origin::File);
        super::layers::invalid(KEY, &at, why)
    };
    let Raw::Tables(written) = raw else {
        let why = "a bridge has more than one value: write it into the file, [broker.bridge.NAME]";
        return Err(wrong(&None, why.to_owned()));
    };
    if written.len() > MAX_BRIDGES {
        let place = &written[MAX_BRIDGES].at;
        return Err(wrong(place, format!("a node has at most {MAX_BRIDGES} bridges")));
    }
    written.iter().map(|table| one(table, used).map_err(|(at, why)| wrong(&at, why))).collect()
}

/// How they are shown in one line; secrets are not.
#[must_use]
pub fn show(all: &[Bridge]) -> String {
    let one = |bridge: &Bridge| format!("{}={}", bridge.name, bridge.urls.join(","));
    all.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn one(table: &Written, used: &[&str]) -> Result<Bridge, Wrong> {
    let mut take = Take::of(table);
    let called = match take.text("name") {
        Some((text, cell)) => name(text).map_err(|why| (cell.at.clone(), why))?,
        None => return Err((table.at.clone(), "a bridge needs a name".to_owned())),
    };
    let urls = urls(&mut take, table)?;
    let publish = patterns(&mut take, "publish")?;
    let subscribe = patterns(&mut take, "subscribe")?;
    if publish.is_empty() && subscribe.is_empty() && !used.contains(&called.as_str()) {
        let why = "nothing is carried: write publish, subscribe or both, as in \"orders.>\"";
        return Err((table.at.clone(), why.to_owned()));
    }
    for (one, other) in publish.iter().flat_map(|one| subscribe.iter().map(move |two| (one, two))) {
        if one.queue.is_some() && one.queue == other.queue && overlap(&one.pattern, &other.pattern)
        {
            let why = "a queue group is shared in one direction: what came from NATS would be handed \
                       to the bridge again, and to nobody else";
            return Err((take.cell("subscribe").and_then(|cell| cell.at.clone()), why.to_owned()));
        }
    }
    let cluster = match take.text("cluster") {
        None => None,
        Some((text, _)) if is_plain(text) => Some(text.to_owned()),
        Some((_, cell)) => {
            let why = format!("a cluster has 1 to {MAX_CLUSTER} letters, digits, '.', '-' and '_'");
            return Err((cell.at.clone(), why));
        }
    };
    Ok(Bridge {
        name: called,
        urls,
        publish,
        subscribe,
        prefix: prefix(&mut take, "prefix")?,
        topic_prefix: prefix(&mut take, "topic_prefix")?,
        cluster,
        login: login(&mut take)?,
        ca: take.text("ca").map(|(text, _)| text.into()),
        certificate: certificate(&mut take)?,
    })
}

/// Whether a text is one that stands in marks and in names of groups as it is.
#[must_use]
pub fn is_plain(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (1..=MAX_CLUSTER).contains(&text.len()) && text.chars().all(allowed)
}

fn urls(take: &mut Take<'_>, table: &Written) -> Result<Vec<String>, Wrong> {
    let Some(cell) = take.cell("url") else {
        let why = "a bridge needs a url: nats://HOST:4222, or tls://";
        return Err((table.at.clone(), why.to_owned()));
    };
    if cell.values.is_empty() || cell.values.len() > MAX_URLS {
        return Err((cell.at.clone(), format!("1 to {MAX_URLS} urls are expected")));
    }
    let url = |text: &String| match async_nats::ServerAddr::from_str(text.trim()) {
        Ok(url) if url.has_user_pass() || url.password().is_some() => {
            Err("a url is shown, and no place for secrets: write user and password".to_owned())
        }
        Ok(url) if !matches!(url.scheme(), "nats" | "tls") || url.host().is_empty() => {
            Err(format!("{text:?} is none of nats://HOST:PORT and tls://HOST:PORT"))
        }
        Ok(url) => Ok(url.as_url_str().to_owned()),
        Err(_) => Err(format!("{text:?} is none of nats://HOST:PORT and tls://HOST:PORT")),
    };
    cell.values.iter().map(url).collect::<Result<_, _>>().map_err(|why| (cell.at.clone(), why))
}

fn patterns(take: &mut Take<'_>, key: &'static str) -> Result<Vec<Carried>, Wrong> {
    let Some(cell) = take.cell(key) else { return Ok(Vec::new()) };
    let wrong = |why: String| (cell.at.clone(), why);
    if cell.values.len() > MAX_PATTERNS {
        return Err(wrong(format!("there are at most {MAX_PATTERNS} patterns")));
    }
    let mut all: Vec<Carried> = Vec::new();
    for text in &cell.values {
        let one = carried(text).map_err(|why| wrong(format!("{text:?}: {why}")))?;
        if let Some(other) = all.iter().find(|other| overlap(&other.pattern, &one.pattern)) {
            // Each would carry what both ask for.
            return Err(wrong(format!("{} and {} overlap", other.pattern, one.pattern)));
        }
        all.push(one);
    }
    Ok(all)
}

fn carried(text: &str) -> Result<Carried, String> {
    let (pattern, queue) = match text.trim().split_once(' ') {
        Some((pattern, queue)) => (pattern, Some(queue.trim())),
        None => (text.trim(), None),
    };
    if pattern.starts_with(['_', '$']) {
        return Err("what begins with _ or $ is the business of one side".to_owned());
    }
    let pattern = TopicPattern::new(pattern.to_owned()).map_err(|why| why.to_string())?;
    let queue = queue.map(|queue| QueueGroup::new(queue.to_owned())).transpose();
    Ok(Carried { pattern, queue: queue.map_err(|why| why.to_string())? })
}

/// Whether some topic is one of both patterns.
pub(super) fn overlap(one: &TopicPattern, other: &TopicPattern) -> bool {
    let (mut one, mut other) = (one.as_str().split('.'), other.as_str().split('.'));
    loop {
        match (one.next(), other.next()) {
            (None, None) | (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some("*"), Some(_)) | (Some(_), Some("*")) => {}
            (Some(one), Some(other)) if one == other => {}
            (_, _) => return false,
        }
    }
}

fn prefix(take: &mut Take<'_>, key: &'static str) -> Result<Option<String>, Wrong> {
    let Some((text, cell)) = take.text(key) else { return Ok(None) };
    let text = text.strip_suffix('.').unwrap_or(text);
    let wrong = |why: String| (cell.at.clone(), why);
    if text.starts_with(['_', '$']) {
        return Err(wrong("what begins with _ or $ is the business of one side".to_owned()));
    }
    Topic::new(text.to_owned()).map_err(|why| wrong(why.to_string()))?;
    Ok(Some(text.to_owned()))
}

fn login(take: &mut Take<'_>) -> Result<Login, Wrong> {
    let user = take.text("user").map(|(text, cell)| (text.to_owned(), cell.at.clone()));
    let mut given = Vec::new();
    if let Some(token) = take.secret("token")? {
        given.push(Login::Token(token));
    }
    if let Some(seed) = take.secret("nkey")? {
        given.push(Login::Key(seed));
    }
    if let Some(text) = take.secret("credentials")? {
        given.push(Login::Credentials(text));
    }
    match (user, take.secret("password")?) {
        (Some((user, _)), Some(password)) => given.push(Login::User(user, password)),
        (None, None) => {}
        (Some((_, at)), None) => {
            return Err((at, "a user needs a password: file:PATH or env:NAME".to_owned()));
        }
        (None, Some(_)) => {
            let at = take.cell("password").and_then(|cell| cell.at.clone());
            return Err((at, "a password needs a user".to_owned()));
        }
    }
    if given.len() > 1 {
        let at = take.cell("url").and_then(|cell| cell.at.clone());
        return Err((at, "one of credentials, nkey, token and user is expected".to_owned()));
    }
    Ok(given.pop().unwrap_or(Login::Nobody))
}

fn certificate(take: &mut Take<'_>) -> Result<Option<(PathBuf, PathBuf)>, Wrong> {
    let cert = take.text("cert").map(|(text, cell)| (PathBuf::from(text), cell.at.clone()));
    let key = take.text("key").map(|(text, cell)| (PathBuf::from(text), cell.at.clone()));
    match (cert, key) {
        (Some((cert, _)), Some((key, _))) => Ok(Some((cert, key))),
        (None, None) => Ok(None),
        (Some((_, at)), None) | (None, Some((_, at))) => {
            Err((at, "cert and key belong together".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file;

    fn of(text: &str) -> Result<Vec<Bridge>, Problem> {
        let layer = file::parse(text, "m.toml")?;
        let (raw, origin) = layer.get(KEY).unwrap();
        read(raw, origin, &[])
    }

    #[test]
    fn a_bridge_is_read_with_all_that_belongs_to_it() {
        let all = of("[broker.bridge.acme]\nurl = [\"tls://a:4222\", \"b\"]\n\
                      publish = [\"orders.>\", \"jobs.* workers\"]\nsubscribe = \"alerts.>\"\n\
                      prefix = \"acme.\"\ntopic_prefix = \"from.acme\"\nca = \"/ca.pem\"\n\
                      nkey = \"SUAX\"\ncluster = \"prod\"\n")
        .unwrap();
        let [bridge] = &all[..] else { panic!("{all:?}") };
        assert_eq!(bridge.urls, ["tls://a:4222", "nats://b"]);
        let [orders, jobs] = &bridge.publish[..] else { panic!("{bridge:?}") };
        assert_eq!((orders.pattern.as_str(), &orders.queue), ("orders.>", &None));
        assert_eq!(jobs.queue.as_ref().map(QueueGroup::as_str), Some("workers"));
        assert_eq!(bridge.prefix.as_deref(), Some("acme"));
        assert_eq!(bridge.topic_prefix.as_deref(), Some("from.acme"));
        assert!(matches!(bridge.login, Login::Key(_)));
        assert!(!format!("{bridge:?}").contains("SUAX") && !show(&all).contains("SUAX"));
    }

    #[test]
    fn what_does_not_fit_is_shown_where_it_stands() {
        for (text, note, line) in [
            ("publish = \"a\"", "needs a url", 1),
            ("url = \"a\"", "nothing is carried", 1),
            ("url = \"http://a\"\npublish = \"a\"", "none of nats://", 2),
            ("url = \"nats://u:p@a\"\npublish = \"a\"", "no place for secrets", 2),
            ("url = []\npublish = \"a\"", "1 to 16", 2),
            ("url = \"a\"\npublish = \"a..b\"", "must have a character", 3),
            ("url = \"a\"\npublish = \"_INBOX.>\"", "business of one side", 3),
            ("url = \"a\"\npublish = [\"a.>\", \"a.*\"]", "a.> and a.* overlap", 3),
            ("url = \"a\"\npublish = \"a.> q\"\nsubscribe = \"*.b q\"", "in one direction", 4),
            ("url = \"a\"\npublish = \"a\"\nprefix = \"a.*\"", "a wildcard stands", 4),
            ("url = \"a\"\npublish = \"a\"\nuser = \"u\"", "needs a password", 4),
            ("url = \"a\"\npublish = \"a\"\nnkey = \"n\"\ntoken = \"t\"", "one of", 2),
            ("url = \"a\"\npublish = \"a\"\ncert = \"c\"", "belong together", 4),
            ("url = \"a\"\npublish = \"a\"\ncluster = \"a b\"", "a cluster has", 4),
        ] {
            let problem = of(&format!("[broker.bridge.x]\n{text}\n")).unwrap_err();
            let shown = problem.to_string();
            assert!(shown.contains(note) && shown.contains(&format!("m.toml:{line}:")), "{shown}");
        }
        let unknown = of("[broker.bridge.x]\nurls = \"a\"\n").unwrap_err().to_string();
        assert!(unknown.contains("broker.bridge.x.urls"), "{unknown}");
    }

    #[test]
    fn the_environment_has_no_short_form() {
        let origin = Origin::Environment("MICRO_NODE_BROKER_BRIDGE".to_owned());
        let problem = read(&Raw::Text("nats://a".to_owned()), &origin, &[]).unwrap_err();
        assert!(problem.to_string().contains("write it into the file"), "{problem}");
    }
}
