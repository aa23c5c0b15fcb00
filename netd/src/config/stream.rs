//! `[broker.stream.NAME]`: topics whose messages this node keeps.

use std::time::Duration;

use proto::topic::TopicPattern;
use serde::Deserialize;
use toml::Spanned;

use super::backend::{Cell, Take, Written, Wrong};
use super::bridge::is_plain;
use super::file::{Strings, place};
use super::layers::Origin;
use super::values::Raw;
use super::{duration, size};
use crate::error::{Excerpt, Problem};
use crate::streams::log::Bounds;

/// The key of all of them.
pub const KEY: &str = "broker.stream";
/// Streams of one node.
const MAX_STREAMS: usize = 64;
/// Patterns of one stream.
const MAX_TOPICS: usize = 64;
/// Bytes of one stream, unless said.
const SIZE: u64 = 1 << 30;
/// And at least: some messages of the longest.
const LEAST: u64 = 16 << 20;

/// A table as it was written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is told in docs/streams.md")]
pub struct StreamTable {
    pub topics: Option<Spanned<Strings>>,
    pub max_age: Option<Spanned<String>>,
    pub max_size: Option<Spanned<String>>,
    pub bridge: Option<Spanned<String>>,
}

/// A stream, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// What it is called, in the whole network.
    pub name: String,
    /// What it keeps. No topic is one of two of these.
    pub topics: Vec<TopicPattern>,
    /// For how long; `None`: until there is no room.
    pub max_age: Option<Duration>,
    /// Bytes that it keeps.
    pub max_size: u64,
    /// The bridge whose server keeps it; `None`: this node does.
    pub bridge: Option<String>,
}

impl Stream {
    /// What its log may hold.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        Bounds { age: self.max_age, bytes: self.max_size }
    }
}

impl StreamTable {
    /// With the place of each value in `text`, the file called `name`; `key` names the stream.
    #[must_use]
    pub fn written(self, key: Spanned<String>, text: &str, name: &str) -> Written {
        let at = |span: std::ops::Range<usize>| Some(place(text, name, span, String::new()));
        let table = at(key.span());
        let mut cells =
            vec![Cell { key: "name", values: vec![key.into_inner()], at: table.clone() }];
        for (key, value) in
            [("max_age", self.max_age), ("max_size", self.max_size), ("bridge", self.bridge)]
        {
            let Some(value) = value else { continue };
            let span = value.span();
            cells.push(Cell { key, values: vec![value.into_inner()], at: at(span) });
        }
        if let Some(value) = self.topics {
            let span = value.span();
            cells.push(Cell { key: "topics", values: value.into_inner().0, at: at(span) });
        }
        Written { cells, at: table }
    }
}

/// What `raw` means.
///
/// # Errors
/// M4003 with the place.
pub fn read(raw: &Raw, origin: &Origin) -> Result<Vec<Stream>, Problem> {
    let wrong = |place: &Option<Excerpt>, why: String| {
        let at = place.clone().map_or_else(|| origin.clone(), Origin::File);
        super::layers::invalid(KEY, &at, why)
    };
    let Raw::Tables(written) = raw else {
        let why = "a stream has more than one value: write it into the file, [broker.stream.NAME]";
        return Err(wrong(&None, why.to_owned()));
    };
    if written.len() > MAX_STREAMS {
        let place = &written[MAX_STREAMS].at;
        return Err(wrong(place, format!("a node has at most {MAX_STREAMS} streams")));
    }
    let mut all: Vec<Stream> = Vec::new();
    for table in written {
        let one = one(table).map_err(|(at, why)| wrong(&at, why))?;
        for other in &all {
            if let Some((this, that)) = shared(&one.topics, &other.topics) {
                let why = format!("{this} and {that} of {} share topics", other.name);
                return Err(wrong(&table.at, why));
            }
        }
        all.push(one);
    }
    Ok(all)
}

/// How they are shown in one line.
#[must_use]
pub fn show(all: &[Stream]) -> String {
    let one = |stream: &Stream| {
        let topics: Vec<_> = stream.topics.iter().map(TopicPattern::as_str).collect();
        format!("{}={}", stream.name, topics.join(","))
    };
    all.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn one(table: &Written) -> Result<Stream, Wrong> {
    let mut take = Take::of(table);
    let name = match take.text("name") {
        // A part of topics, and a directory.
        Some((text, _)) if is_plain(text) && !text.contains('.') => text.to_owned(),
        Some((_, cell)) => {
            let why = "a stream has 1 to 63 letters, digits, '-' and '_'";
            return Err((cell.at.clone(), why.to_owned()));
        }
        None => return Err((table.at.clone(), "a stream needs a name".to_owned())),
    };
    let topics = topics(&mut take, table)?;
    let max_age = match take.text("max_age") {
        None => None,
        Some((text, cell)) => {
            let age = duration::parse(text).map_err(|why| (cell.at.clone(), why))?;
            if age.is_zero() {
                let why = "nothing would be kept: leave max_age out to keep all there is room for";
                return Err((cell.at.clone(), why.to_owned()));
            }
            Some(age)
        }
    };
    let max_size = match take.text("max_size") {
        None => SIZE,
        Some((text, cell)) => match size::parse(text) {
            Ok(size) if size >= LEAST => size,
            Ok(_) => {
                let why = format!("a stream has room for at least {}", size::show(LEAST));
                return Err((cell.at.clone(), why));
            }
            Err(why) => return Err((cell.at.clone(), why)),
        },
    };
    let bridge = take.text("bridge").map(|(text, _)| text.to_owned());
    Ok(Stream { name, topics, max_age, max_size, bridge })
}

fn topics(take: &mut Take<'_>, table: &Written) -> Result<Vec<TopicPattern>, Wrong> {
    let Some(cell) = take.cell("topics").filter(|cell| !cell.values.is_empty()) else {
        let why = "nothing is kept: write topics, as in \"orders.>\"";
        return Err((table.at.clone(), why.to_owned()));
    };
    let wrong = |why: String| (cell.at.clone(), why);
    if cell.values.len() > MAX_TOPICS {
        return Err(wrong(format!("there are at most {MAX_TOPICS} patterns")));
    }
    let mut all = Vec::new();
    for text in &cell.values {
        if text.starts_with(['_', '$', '*', '>']) {
            return Err(wrong(format!(
                "{text:?}: what begins with _ or $ is for answers and questions, and a first part that is a \
                 wildcard takes them too"
            )));
        }
        let pattern =
            TopicPattern::new(text.clone()).map_err(|why| wrong(format!("{text:?}: {why}")))?;
        if let Some((one, other)) = shared(std::slice::from_ref(&pattern), &all) {
            return Err(wrong(format!("{one} and {other} share topics")));
        }
        all.push(pattern);
    }
    Ok(all)
}

/// Two patterns, one of each, that some topic is one of both of.
fn shared<'a>(
    these: &'a [TopicPattern],
    those: &'a [TopicPattern],
) -> Option<(&'a TopicPattern, &'a TopicPattern)> {
    let mut pairs = these.iter().flat_map(|one| those.iter().map(move |other| (one, other)));
    pairs.find(|(one, other)| super::bridge::overlap(one, other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file;

    fn of(text: &str) -> Result<Vec<Stream>, Problem> {
        let layer = file::parse(text, "m.toml")?;
        let (raw, origin) = layer.get(KEY).unwrap();
        read(raw, origin)
    }

    #[test]
    fn a_stream_is_read_with_its_bounds() {
        let all = of("[broker.stream.orders]\ntopics = [\"orders.>\", \"jobs.*\"]\n\
                      max_age = \"7d\"\nmax_size = \"2GiB\"\n[broker.stream.b]\ntopics = \"b\"\n")
        .unwrap();
        let [b, orders] = &all[..] else { panic!("{all:?}") };
        assert_eq!((b.max_age, b.max_size), (None, SIZE));
        let week = Duration::from_secs(7 * 24 * 3600);
        assert_eq!((orders.max_age, orders.max_size), (Some(week), 2 << 30));
        assert_eq!(show(&all), "b=b; orders=orders.>,jobs.*");
    }

    #[test]
    fn what_does_not_fit_is_shown_where_it_stands() {
        for (text, note, line) in [
            ("max_age = \"1d\"", "nothing is kept", 1),
            ("topics = []", "nothing is kept", 1),
            ("topics = \"a..b\"", "must have a character", 2),
            ("topics = \">\"", "a wildcard takes them too", 2),
            ("topics = \"$JS.>\"", "questions", 2),
            ("topics = [\"a.>\", \"a.b\"]", "a.b and a.> share topics", 2),
            ("topics = \"a\"\nmax_age = \"0s\"", "nothing would be kept", 3),
            ("topics = \"a\"\nmax_size = \"1MiB\"", "at least 16MiB", 3),
            ("topics = \"a\"\nmax_size = \"much\"", "as in 512MiB", 3),
            ("topics = \"a\"\n[broker.stream.y]\ntopics = \"*.b\"", "a wildcard", 4),
            ("topics = \"a.*\"\n[broker.stream.y]\ntopics = \"a.b\"", "share topics", 3),
        ] {
            let problem = of(&format!("[broker.stream.x]\n{text}\n")).unwrap_err();
            let shown = problem.to_string();
            assert!(shown.contains(note) && shown.contains(&format!("m.toml:{line}:")), "{shown}");
        }
        let named = of("[broker.stream.\"a.b\"]\ntopics = \"a\"\n").unwrap_err().to_string();
        assert!(named.contains("a stream has 1 to 63"), "{named}");
    }
}
