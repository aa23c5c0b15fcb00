//! Topics, and the patterns that ask for them: the rules of NATS subjects.
//!
//! ```text
//! topic    token *( "." token )                     at most MAX_TOKENS tokens, MAX_TOPIC bytes
//! pattern  as a topic; a token "*" stands for any one, a last token ">" for one or more
//! ```
//!
//! A token is any UTF-8 text without dots, white space and control characters. A topic has no
//! token `*` or `>`, but may have these characters inside of one, as NATS has it.

use std::fmt;

use bytes::Bytes;

/// Bytes of a topic or pattern.
pub const MAX_TOPIC: usize = 512;
/// Tokens of a topic or pattern: one bit each in a [`Shape`].
pub const MAX_TOKENS: usize = 32;
/// Bytes of the name of a queue group.
pub const MAX_GROUP: usize = 128;

/// Why a text is not a topic, a pattern or the name of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTopic {
    /// Nothing at all, or nothing between two dots, before the first or after the last.
    #[error("a topic and each part of it between dots must have a character")]
    Empty,
    /// More bytes than allowed.
    #[error("longer than {0} bytes")]
    TooLong(usize),
    /// More tokens than [`MAX_TOKENS`].
    #[error("more than {MAX_TOKENS} parts")]
    TooMany,
    /// White space or a control character.
    #[error("white space and control characters are not allowed")]
    Character,
    /// Not UTF-8.
    #[error("not UTF-8 text")]
    Encoding,
    /// A wildcard where one message is published, or `>` before the end.
    #[error("a wildcard stands where none may")]
    Wildcard,
}

/// A topic that a message can be published to. Cheap to clone: shared bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Bytes);

impl Topic {
    /// A topic from its text, which is shared and not copied.
    ///
    /// # Errors
    /// [`BadTopic`] says what is wrong.
    pub fn new(text: impl Into<Bytes>) -> Result<Self, BadTopic> {
        let text = text.into();
        check(&text)?;
        if tokens(&text).any(|token| matches!(token, b"*" | b">")) {
            return Err(BadTopic::Wildcard);
        }
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("checked when it was made")
    }

    /// The text as shared bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// A number from 0 to `of - 1` that is the same for one topic on every node: topics of one
    /// number share a way, and with it an order.
    ///
    /// # Panics
    /// Never for an `of` above 0.
    #[must_use]
    pub fn lane(&self, of: u8) -> u8 {
        // FNV-1a (RFC 9923): topics are short, and nobody gains by choosing a lane.
        let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        let hash = self.0.iter().fold(0x811c_9dc5, step);
        u8::try_from(hash % u32::from(of)).expect("smaller than a byte")
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which topics somebody wants.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPattern {
    text: Bytes,
    shape: Shape,
}

/// Where the wildcards of a pattern are. All patterns of one shape that may match a topic are one:
/// the topic with `*` at those places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    /// How many tokens, `>` not counted.
    pub tokens: u8,
    /// Bit n: token n is `*`.
    pub stars: u32,
    /// Ends with `>`.
    pub open: bool,
}

impl TopicPattern {
    /// A pattern from its text, which is shared and not copied.
    ///
    /// # Errors
    /// [`BadTopic`] says what is wrong.
    pub fn new(text: impl Into<Bytes>) -> Result<Self, BadTopic> {
        let text = text.into();
        check(&text)?;
        let mut shape = Shape::default();
        for token in tokens(&text) {
            match token {
                _ if shape.open => return Err(BadTopic::Wildcard),
                b">" => {
                    shape.open = true;
                    continue;
                }
                b"*" => shape.stars |= 1 << shape.tokens,
                _ => {}
            }
            shape.tokens += 1;
        }
        Ok(Self { text, shape })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text).expect("checked when it was made")
    }

    /// The text as shared bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.text
    }

    /// Where its wildcards are.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Whether `topic` is one of those it stands for.
    #[must_use]
    pub fn matches(&self, topic: &Topic) -> bool {
        let (mut asked, mut said) = (tokens(&self.text), tokens(&topic.0));
        loop {
            match (asked.next(), said.next()) {
                (None, None) => return true,
                (Some(b">"), Some(_)) => return true,
                (Some(b"*"), Some(_)) => {}
                (Some(asked), Some(said)) if asked == said => {}
                (_, _) => return false,
            }
        }
    }
}

impl From<Topic> for TopicPattern {
    fn from(topic: Topic) -> Self {
        Self::new(topic.0).expect("every topic is a pattern")
    }
}

impl fmt::Debug for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of a queue group: of its members one gets each message.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueGroup(Bytes);

impl QueueGroup {
    /// A name from its text, which is shared and not copied.
    ///
    /// # Errors
    /// [`BadTopic`] says what is wrong.
    pub fn new(text: impl Into<Bytes>) -> Result<Self, BadTopic> {
        let text = text.into();
        characters(&text, MAX_GROUP)?;
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("checked when it was made")
    }

    /// The text as shared bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for QueueGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The parts of a topic or pattern.
pub fn tokens(text: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    text.split(|byte| *byte == b'.')
}

fn check(text: &[u8]) -> Result<(), BadTopic> {
    characters(text, MAX_TOPIC)?;
    let mut count = 0;
    for token in tokens(text) {
        if token.is_empty() {
            return Err(BadTopic::Empty);
        }
        count += 1;
    }
    if count > MAX_TOKENS { Err(BadTopic::TooMany) } else { Ok(()) }
}

fn characters(text: &[u8], most: usize) -> Result<(), BadTopic> {
    if text.is_empty() {
        return Err(BadTopic::Empty);
    }
    if text.len() > most {
        return Err(BadTopic::TooLong(most));
    }
    if text.iter().all(u8::is_ascii_graphic) {
        return Ok(());
    }
    let text = std::str::from_utf8(text).map_err(|_| BadTopic::Encoding)?;
    let refused = |c: char| c.is_whitespace() || c.is_control();
    if text.chars().any(refused) { Err(BadTopic::Character) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(text: &str) -> Topic {
        Topic::new(text.to_owned()).unwrap()
    }

    fn pattern(text: &str) -> TopicPattern {
        TopicPattern::new(text.to_owned()).unwrap()
    }

    #[test]
    fn wildcards_stand_for_one_token_and_for_all_that_are_left() {
        for (asked, said, matches) in [
            ("a.b", "a.b", true),
            ("a.b", "a.b.c", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("*.b", "a.b", true),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a", true),
            ("*.>", "a.b", true),
            ("a*.b", "ax.b", false),
        ] {
            assert_eq!(pattern(asked).matches(&topic(said)), matches, "{asked} {said}");
        }
    }

    #[test]
    fn what_is_no_topic_is_refused_with_a_reason() {
        for (text, why) in [
            ("", BadTopic::Empty),
            ("a..b", BadTopic::Empty),
            (".a", BadTopic::Empty),
            ("a.", BadTopic::Empty),
            ("a b", BadTopic::Character),
            ("a\u{2028}b", BadTopic::Character),
            ("a\r\nb", BadTopic::Character),
            ("a.*", BadTopic::Wildcard),
            (">", BadTopic::Wildcard),
        ] {
            assert_eq!(Topic::new(text), Err(why), "{text:?}");
        }
        assert_eq!(Topic::new(vec![b'x'; 64 * 1024]), Err(BadTopic::TooLong(MAX_TOPIC)));
        assert_eq!(Topic::new("x.".repeat(32) + "x"), Err(BadTopic::TooMany));
        assert_eq!(Topic::new(vec![0xff]), Err(BadTopic::Encoding));
        assert_eq!(TopicPattern::new("a.>.b"), Err(BadTopic::Wildcard));
        assert_eq!(QueueGroup::new("my group"), Err(BadTopic::Character));
        assert!(Topic::new("go.micro.ünï.a*>").is_ok());
    }

    #[test]
    fn a_shape_says_where_the_wildcards_are() {
        assert_eq!(pattern("a.*.c.>").shape(), Shape { tokens: 3, stars: 0b10, open: true });
        assert_eq!(pattern("a").shape(), Shape { tokens: 1, stars: 0, open: false });
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Ok(topic) = Topic::new(bytes.clone()) {
                let pattern = TopicPattern::new(bytes).unwrap();
                assert!(pattern.matches(&topic) && topic.lane(4) < 4);
            }
        }
    }
}
