//! Rules as they travel.
//!
//! ```text
//! set    (see wire)  1 revision   2 rule *   3 change *
//! rule   1 name   2 endpoint *   3 header *   4 caller *   5 node *   6 labels (text)
//!        7 share: part   8 share: key (text)   10 subset *   11 split by (text)   12 select (text)
//!        13 timeout, ms   14 retries + 1   15 mirror   16 divert   17 delay   18 abort   19 rate
//!        20 affinity (text)   21 spill
//! header 1 name   2 test   3 value              subset 1 name   2 select (text)   3 weight
//! mirror 1 target (text)   2 part               divert 1 node   2 until
//! delay  1 ms   2 part     abort 1 status   2 part
//! rate   1 per second   2 burst   3 by (text)   spill  1 above   2 below
//! change 1 revision   2 author   3 seconds since 1970   4 added *   5 changed *   6 removed *
//!        7 reordered   8 how many more
//! ```
//!
//! Parts are in hundredths of a percent and written plus one, so that none and 0 differ.

use std::fmt::Display;
use std::str::FromStr;

use bytes::{Bytes, BytesMut};

use super::{
    Abort, Change, Delay, Divert, HeaderTest, MAX_HISTORY, MAX_PARTS, MAX_RULES, MAX_SET, Mirror,
    Part, Rate, Rule, RuleSet, Share, Spill, Subset, Test,
};
use crate::error::DecodeError;
use crate::grant::Pattern;
use crate::id::NodeId;
use crate::selector::{MAX_TEXT, Selector};
use crate::time::UnixTime;
use crate::wire::{self, Fields, Value};

impl RuleSet {
    /// As the body of a record.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        wire::put_int(&mut out, 1, self.revision);
        for rule in &self.rules {
            wire::put_message(&mut out, 2, |out| rule.encode(out));
        }
        for change in &self.history {
            wire::put_message(&mut out, 3, |out| change.encode(out));
        }
        out.freeze()
    }

    /// From the body of a record.
    ///
    /// # Errors
    /// [`DecodeError`] when it is none, or has what [`RuleSet::check`] refuses.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        if body.len() > MAX_SET {
            return Err(DecodeError::TooLarge("rules"));
        }
        let mut set = Self::default();
        let mut fields = Fields::new(body);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => set.revision = value.int("revision")?,
                2 if set.rules.len() == MAX_RULES => return Err(DecodeError::TooLarge("rules")),
                2 => set.rules.push(Rule::decode(message(value)?)?),
                3 if set.history.len() == MAX_HISTORY => {
                    return Err(DecodeError::TooLarge("history of rules"));
                }
                3 => set.history.push(Change::decode(message(value)?)?),
                tag => wire::unknown(tag)?,
            }
        }
        set.check().map_err(|_| DecodeError::Invalid("rules"))?;
        Ok(set)
    }
}

impl Rule {
    fn encode(&self, out: &mut BytesMut) {
        let (when, then) = (&self.when, &self.then);
        wire::put_bytes(out, 1, self.name.as_bytes());
        for (tag, patterns) in [(2, &when.endpoints), (4, &when.callers), (5, &when.nodes)] {
            for pattern in patterns {
                wire::put_item(out, tag, pattern.as_str().as_bytes());
            }
        }
        for header in &when.headers {
            wire::put_message(out, 3, |out| header.encode(out));
        }
        put_text(out, 6, Some(&when.labels));
        if let Some(share) = &when.share {
            put_part(out, 7, share.part);
            put_text(out, 8, share.by.as_ref());
        }
        for subset in &then.subsets {
            wire::put_message(out, 10, |out| {
                wire::put_bytes(out, 1, subset.name.as_bytes());
                put_text(out, 2, Some(&subset.select));
                wire::put_int(out, 3, u64::from(subset.weight));
            });
        }
        put_text(out, 11, then.split_by.as_ref());
        put_text(out, 12, Some(&then.select));
        wire::put_int(out, 13, then.timeout.map_or(0, u64::from));
        wire::put_int(out, 14, then.retries.map_or(0, |retries| u64::from(retries) + 1));
        if let Some(mirror) = &then.mirror {
            wire::put_message(out, 15, |out| {
                put_text(out, 1, Some(&mirror.target));
                put_part(out, 2, mirror.part);
            });
        }
        if let Some(divert) = &then.divert {
            wire::put_message(out, 16, |out| {
                wire::put_bytes(out, 1, divert.node.as_bytes());
                wire::put_int(out, 2, divert.until.0);
            });
        }
        let delay = then.delay.map(|delay| (17, delay.millis, delay.part));
        let abort = then.abort.map(|abort| (18, u32::from(abort.status), abort.part));
        for (tag, number, part) in delay.into_iter().chain(abort) {
            wire::put_message(out, tag, |out| {
                wire::put_int(out, 1, u64::from(number));
                put_part(out, 2, part);
            });
        }
        if let Some(rate) = &then.rate {
            wire::put_message(out, 19, |out| {
                wire::put_int(out, 1, u64::from(rate.per_second));
                wire::put_int(out, 2, u64::from(rate.burst));
                put_text(out, 3, rate.by.as_ref());
            });
        }
        put_text(out, 20, then.affinity.as_ref());
        if let Some(spill) = then.spill {
            wire::put_message(out, 21, |out| {
                wire::put_int(out, 1, u64::from(spill.above));
                wire::put_int(out, 2, u64::from(spill.below));
            });
        }
    }

    fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut rule = Self::default();
        let (mut part, mut by) = (None, None);
        let mut fields = Fields::new(body);
        while let Some((tag, value)) = fields.next()? {
            let Self { when, then, .. } = &mut rule;
            match tag {
                1 => rule.name = value.text("rule", 64)?,
                2 => push(&mut when.endpoints, pattern(value)?)?,
                3 => push(&mut when.headers, HeaderTest::decode(message(value)?)?)?,
                4 => push(&mut when.callers, pattern(value)?)?,
                5 => push(&mut when.nodes, pattern(value)?)?,
                6 => when.labels = text(value)?,
                7 => part = Some(part_of(value)?),
                8 => by = Some(text(value)?),
                10 => push(&mut then.subsets, Subset::decode(message(value)?)?)?,
                11 => then.split_by = Some(text(value)?),
                12 => then.select = text(value)?,
                13 => then.timeout = Some(int(value)?),
                14 => then.retries = Some(int::<u8>(value)?.saturating_sub(1)),
                15 => then.mirror = Some(mirror(message(value)?)?),
                16 => then.divert = Some(divert(message(value)?)?),
                17 => then.delay = Some(delay(message(value)?)?),
                18 => then.abort = Some(abort(message(value)?)?),
                19 => then.rate = Some(rate(message(value)?)?),
                20 => then.affinity = Some(text(value)?),
                21 => then.spill = Some(spill(message(value)?)?),
                tag => wire::unknown(tag)?,
            }
        }
        rule.when.share = match (part, by) {
            (Some(part), by) => Some(Share { part, by }),
            (None, None) => None,
            (None, Some(_)) => return Err(DecodeError::Missing("share of a rule")),
        };
        Ok(rule)
    }
}

impl HeaderTest {
    fn encode(&self, out: &mut BytesMut) {
        let (code, value) = match &self.test {
            Test::Present => (0, ""),
            Test::Absent => (1, ""),
            Test::Is(value) => (2, &**value),
            Test::IsNot(value) => (3, &**value),
            Test::Prefix(value) => (4, &**value),
        };
        wire::put_bytes(out, 1, self.name.as_bytes());
        wire::put_int(out, 2, code);
        wire::put_bytes(out, 3, value.as_bytes());
    }

    fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let (mut name, mut code, mut text) = (String::new(), 0, String::new());
        let mut fields = Fields::new(body);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => name = value.text("header", 64)?,
                2 => code = value.int("test")?,
                3 => text = value.text("value", 1024)?,
                tag => wire::unknown(tag)?,
            }
        }
        let test = match (code, text) {
            (0, text) if text.is_empty() => Test::Present,
            (1, text) if text.is_empty() => Test::Absent,
            (2, text) => Test::Is(text),
            (3, text) => Test::IsNot(text),
            (4, text) => Test::Prefix(text),
            // A test of a newer release must not be taken for one that holds more often.
            (_, _) => return Err(DecodeError::Invalid("test of a header")),
        };
        Ok(Self { name, test })
    }
}

impl Subset {
    fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut subset = Self { name: String::new(), select: Selector::default(), weight: 0 };
        let mut fields = Fields::new(body);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => subset.name = value.text("subset", 64)?,
                2 => subset.select = text(value)?,
                3 => subset.weight = int(value)?,
                tag => wire::unknown(tag)?,
            }
        }
        Ok(subset)
    }
}

fn mirror(body: Bytes) -> Result<Mirror, DecodeError> {
    let (mut target, mut part) = (None, Part::default());
    let mut fields = Fields::new(body);
    while let Some((tag, value)) = fields.next()? {
        match tag {
            1 => target = Some(text(value)?),
            2 => part = part_of(value)?,
            tag => wire::unknown(tag)?,
        }
    }
    Ok(Mirror { target: target.ok_or(DecodeError::Missing("target of a mirror"))?, part })
}

fn divert(body: Bytes) -> Result<Divert, DecodeError> {
    let (mut node, mut until) = (None, UnixTime(0));
    let mut fields = Fields::new(body);
    while let Some((tag, value)) = fields.next()? {
        match tag {
            1 => node = Some(NodeId::from_bytes(value.array("node of a divert")?)),
            2 => until = UnixTime(value.int("until")?),
            tag => wire::unknown(tag)?,
        }
    }
    Ok(Divert { node: node.ok_or(DecodeError::Missing("node of a divert"))?, until })
}

fn delay(body: Bytes) -> Result<Delay, DecodeError> {
    let (millis, part) = number_and_part(body)?;
    Ok(Delay { millis, part })
}

fn abort(body: Bytes) -> Result<Abort, DecodeError> {
    let (status, part) = number_and_part(body)?;
    let status = u16::try_from(status).map_err(|_| DecodeError::Invalid("status"))?;
    Ok(Abort { status, part })
}

fn number_and_part(body: Bytes) -> Result<(u32, Part), DecodeError> {
    let (mut number, mut part) = (0, Part::default());
    let mut fields = Fields::new(body);
    while let Some((tag, value)) = fields.next()? {
        match tag {
            1 => number = int(value)?,
            2 => part = part_of(value)?,
            tag => wire::unknown(tag)?,
        }
    }
    Ok((number, part))
}

fn rate(body: Bytes) -> Result<Rate, DecodeError> {
    let mut rate = Rate { per_second: 0, burst: 0, by: None };
    let mut fields = Fields::new(body);
    while let Some((tag, value)) = fields.next()? {
        match tag {
            1 => rate.per_second = int(value)?,
            2 => rate.burst = int(value)?,
            3 => rate.by = Some(text(value)?),
            tag => wire::unknown(tag)?,
        }
    }
    Ok(rate)
}

fn spill(body: Bytes) -> Result<Spill, DecodeError> {
    let mut spill = Spill { above: 0, below: 0 };
    let mut fields = Fields::new(body);
    while let Some((tag, value)) = fields.next()? {
        match tag {
            1 => spill.above = int(value)?,
            2 => spill.below = int(value)?,
            tag => wire::unknown(tag)?,
        }
    }
    Ok(spill)
}

fn put_text(out: &mut BytesMut, tag: u64, value: Option<&impl Display>) {
    if let Some(value) = value {
        wire::put_bytes(out, tag, value.to_string().as_bytes());
    }
}

fn put_part(out: &mut BytesMut, tag: u64, part: Part) {
    wire::put_int(out, tag, u64::from(part.hundredths()) + 1);
}

fn part_of(value: Value) -> Result<Part, DecodeError> {
    let written: u16 = int(value)?;
    written.checked_sub(1).and_then(Part::of).ok_or(DecodeError::Invalid("part"))
}

fn text<T: FromStr>(value: Value) -> Result<T, DecodeError> {
    let text = value.text("text of a rule", MAX_TEXT + crate::name::MAX_NAME)?;
    text.parse().map_err(|_| DecodeError::Invalid("text of a rule"))
}

fn int<T: TryFrom<u64>>(value: Value) -> Result<T, DecodeError> {
    T::try_from(value.int("number of a rule")?)
        .map_err(|_| DecodeError::Invalid("number of a rule"))
}

fn pattern(value: Value) -> Result<Pattern, DecodeError> {
    Pattern::new(value.text("pattern of a rule", crate::name::MAX_NAME)?)
}

fn message(value: Value) -> Result<Bytes, DecodeError> {
    value.bytes("message", MAX_SET)
}

fn push<T>(list: &mut Vec<T>, item: T) -> Result<(), DecodeError> {
    if list.len() == MAX_PARTS {
        return Err(DecodeError::TooLarge("list of a rule"));
    }
    list.push(item);
    Ok(())
}
