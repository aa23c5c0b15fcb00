//! The topics that a stream takes part in by.
//!
//! ```text
//! what it keeps                   its topics, in the queue group _stream.NAME: every node knows by it who keeps what
//! questions                       $JS.API.….NAME.…
//! what consumers say of messages  $JS.ACK.NAME.CONSUMER.COUNT.NUMBER.GIVEN.TIME.LEFT
//! of all streams                  $JS.API.INFO, $JS.API.STREAM.NAMES, $JS.API.STREAM.LIST, in the group _streams
//! ```

use std::collections::BTreeMap;

use proto::NodeId;
use proto::record::Interest;
use proto::topic::{BadTopic, QueueGroup, TopicPattern};
use proxy::broker::STREAM_GROUP as GROUP;
use router::Routes;

use crate::config::stream::Stream;

/// What questions begin with.
pub(super) const API: &str = "$JS.API.";
/// What words of consumers begin with.
const ACK: &str = "$JS.ACK.";
/// The queue group of nodes with streams.
const ALL: &str = "_streams";
/// Questions about one stream, with its name in place of `@`. No topic is one of two of them.
const QUESTIONS: [&str; 12] = [
    "STREAM.INFO.@",
    "STREAM.CREATE.@",
    "STREAM.UPDATE.@",
    "STREAM.DELETE.@",
    "STREAM.PURGE.@",
    "STREAM.MSG.*.@",
    "CONSUMER.*.@",
    "CONSUMER.CREATE.@.>",
    "CONSUMER.INFO.@.*",
    "CONSUMER.DELETE.@.*",
    "CONSUMER.DURABLE.CREATE.@.*",
    "CONSUMER.MSG.NEXT.@.*",
];

fn interest(pattern: TopicPattern, group: Option<QueueGroup>) -> Interest {
    Interest { namespace: "".into(), pattern, group }
}

/// What a stream keeps.
pub(super) fn of_messages(stream: &Stream) -> Vec<Interest> {
    // A name of a stream is one of a queue group as well.
    let group = QueueGroup::new(format!("{GROUP}{}", stream.name)).ok();
    stream.topics.iter().map(|topic| interest(topic.clone(), group.clone())).collect()
}

/// What it is asked, and told by its consumers.
pub(super) fn of_questions(name: &str) -> Result<Vec<Interest>, BadTopic> {
    let questions =
        QUESTIONS.iter().map(|question| format!("{API}{}", question.replace('@', name)));
    let all = questions.chain([format!("{ACK}{name}.>")]);
    all.map(|pattern| Ok(interest(TopicPattern::new(pattern)?, None))).collect()
}

/// What nodes with streams are asked about all of them.
pub(super) fn of_all() -> Result<Vec<Interest>, BadTopic> {
    let group = QueueGroup::new(ALL)?;
    let all = ["INFO", "STREAM.NAMES", "STREAM.LIST"].into_iter();
    all.map(|question| {
        let pattern = TopicPattern::new(format!("{API}{question}"))?;
        Ok(interest(pattern, Some(group.clone())))
    })
    .collect()
}

/// A stream of the network: where it is, and what it keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The nodes that say so: one, where nothing is amiss.
    pub nodes: Vec<NodeId>,
    /// Its topics.
    pub topics: Vec<TopicPattern>,
}

/// All streams of the network, by their names.
#[must_use]
pub fn known(routes: &Routes) -> BTreeMap<String, Known> {
    let mut all: BTreeMap<String, Known> = BTreeMap::new();
    for (namespace, pattern, wanted) in routes.topics().all() {
        for wants in wanted.iter().filter(|_| namespace.is_empty()) {
            let group = wants.group.as_ref().map(QueueGroup::as_str);
            let Some(name) = group.and_then(|group| group.strip_prefix(GROUP)) else { continue };
            let known = all.entry(name.to_owned()).or_default();
            if !known.nodes.contains(&wants.node) {
                known.nodes.push(wants.node);
            }
            if !known.topics.contains(pattern) {
                known.topics.push(pattern.clone());
            }
        }
    }
    all
}

/// Where a consumer says what became of a message.
pub(super) fn acknowledge(
    stream: &str,
    consumer: &str,
    count: u32,
    (number, given): (u64, u64),
    time: u64,
    left: u64,
) -> String {
    let nanos = time.saturating_mul(1000);
    format!("{ACK}{stream}.{consumer}.{count}.{number}.{given}.{nanos}.{left}")
}

/// What is asked of a stream, by the topic of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question<'a> {
    Info,
    Create,
    Update,
    Delete,
    Purge,
    Get,
    CreateConsumer(Option<&'a str>),
    Consumer(&'a str),
    DeleteConsumer(&'a str),
    Consumers { names: bool },
    Next(&'a str),
    Said { consumer: &'a str, number: u64 },
}

/// Reads the topic of a question.
pub(super) fn question(topic: &str) -> Option<Question<'_>> {
    if let Some(said) = topic.strip_prefix(ACK) {
        let parts: Vec<&str> = said.split('.').collect();
        let [_, consumer, _, number, ..] = parts[..] else { return None };
        return Some(Question::Said { consumer, number: number.parse().ok()? });
    }
    let parts: Vec<&str> = topic.strip_prefix(API)?.split('.').collect();
    Some(match parts[..] {
        ["STREAM", "INFO", _] => Question::Info,
        ["STREAM", "CREATE", _] => Question::Create,
        ["STREAM", "UPDATE", _] => Question::Update,
        ["STREAM", "DELETE", _] => Question::Delete,
        ["STREAM", "PURGE", _] => Question::Purge,
        ["STREAM", "MSG", "GET", _] => Question::Get,
        ["CONSUMER", "CREATE", _] => Question::CreateConsumer(None),
        ["CONSUMER", "DURABLE", "CREATE", _, name] | ["CONSUMER", "CREATE", _, name, ..] => {
            Question::CreateConsumer(Some(name))
        }
        ["CONSUMER", "INFO", _, name] => Question::Consumer(name),
        ["CONSUMER", "DELETE", _, name] => Question::DeleteConsumer(name),
        ["CONSUMER", "NAMES", _] => Question::Consumers { names: true },
        ["CONSUMER", "LIST", _] => Question::Consumers { names: false },
        ["CONSUMER", "MSG", "NEXT", _, name] => Question::Next(name),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proto::topic::Topic;

    use super::*;

    #[test]
    fn each_question_is_heard_once_whatever_its_stream_is_called() {
        for name in ["orders", "CREATE", "MSG", "DURABLE", "NEXT"] {
            let all = of_questions(name).unwrap();
            for topic in [
                "STREAM.INFO.@",
                "STREAM.MSG.GET.@",
                "CONSUMER.CREATE.@",
                "CONSUMER.CREATE.@.@",
                "CONSUMER.CREATE.@.x.orders.*.>",
                "CONSUMER.DURABLE.CREATE.@.x",
                "CONSUMER.INFO.@.@",
                "CONSUMER.NAMES.@",
                "CONSUMER.MSG.NEXT.@.@",
            ] {
                let text = format!("{API}{}", topic.replace('@', name));
                assert!(question(&text).is_some(), "{text}");
                let Ok(topic) = Topic::new(text.clone()) else { continue };
                let heard = all.iter().filter(|one| one.pattern.matches(&topic)).count();
                assert_eq!(heard, 1, "{text}");
            }
        }
    }

    #[test]
    fn words_of_consumers_name_the_message() {
        let text = acknowledge("orders", "audit", 2, (17, 20), 5, 3);
        assert_eq!(text, "$JS.ACK.orders.audit.2.17.20.5000.3");
        assert_eq!(question(&text), Some(Question::Said { consumer: "audit", number: 17 }));
        for text in ["$JS.ACK.a.b", "$JS.ACK.a.b.1.x.1.1.1", "$JS.API.ELSE.a", "orders.new"] {
            assert_eq!(question(text), None, "{text}");
        }
    }
}
