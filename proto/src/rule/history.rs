//! What became of the rules of a service: each set carries the changes that led to it, so that
//! whoever holds a set knows them, also a node that was away meanwhile.

use bytes::{Bytes, BytesMut};

use super::{MAX_NAME, MAX_SET, Rule, RuleSet, is_name};
use crate::error::DecodeError;
use crate::id::NodeId;
use crate::time::UnixTime;
use crate::wire::{self, Fields};

/// Changes that a set remembers, the one that made it included; the oldest is forgotten first.
pub const MAX_HISTORY: usize = 20;
/// Rules that are named with one change; of the others it is known how many there were.
pub const MAX_NAMED: usize = 16;

/// One change of the rules of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The revision it made.
    pub revision: u64,
    /// The node that wrote it; `None` where a set is damaged or of another release.
    pub author: Option<NodeId>,
    /// When, by the clock of that node.
    pub at: UnixTime,
    /// Rules that were not there before.
    pub added: Vec<String>,
    /// Rules that say something else than before.
    pub changed: Vec<String>,
    /// Rules that were there before.
    pub removed: Vec<String>,
    /// Those that stayed are tried in another order.
    pub reordered: bool,
    /// Rules added, changed or removed that are not named, for there were more than [`MAX_NAMED`].
    pub more: u32,
}

impl RuleSet {
    /// The set that `author` puts in place of `before` at `at`, with what it changes.
    ///
    /// It may be too large: see [`RuleSet::check`]. What it remembers gives way before that.
    #[must_use]
    pub fn following(
        before: Option<&Self>,
        rules: Vec<Rule>,
        author: NodeId,
        at: UnixTime,
    ) -> Self {
        let (old, revision) = before.map_or((&[][..], 0), |set| (&*set.rules, set.revision));
        let revision = revision.saturating_add(1);
        let change = Change { revision, author: Some(author), at, ..Change::between(old, &rules) };
        let known = before.map_or(&[][..], |set| &*set.history);
        let kept = known.len().saturating_sub(MAX_HISTORY - 1);
        let mut history = known[kept..].to_vec();
        history.push(change);
        let mut set = Self { revision, rules, history };
        while set.history.len() > 1 && set.encode().len() > MAX_SET {
            set.history.remove(0);
        }
        set
    }
}

impl Change {
    /// What differs between two lists of rules.
    fn between(old: &[Rule], new: &[Rule]) -> Self {
        let find = |all: &[Rule], name: &str| all.iter().position(|rule| rule.name == name);
        let mut change = Self::default();
        let mut named = 0;
        let mut note = |list: &mut Vec<String>, more: &mut u32, name: &String| {
            named += 1;
            if named <= MAX_NAMED {
                list.push(name.clone());
            } else {
                *more += 1;
            }
        };
        let mut places = Vec::new();
        for rule in new {
            match find(old, &rule.name) {
                None => note(&mut change.added, &mut change.more, &rule.name),
                Some(at) => {
                    places.push(at);
                    if old[at] != *rule {
                        note(&mut change.changed, &mut change.more, &rule.name);
                    }
                }
            }
        }
        for rule in old.iter().filter(|rule| find(new, &rule.name).is_none()) {
            note(&mut change.removed, &mut change.more, &rule.name);
        }
        change.reordered = !places.is_sorted();
        change
    }

    pub(super) fn check(&self) -> Result<(), &'static str> {
        let mut names = self.added.iter().chain(&self.changed).chain(&self.removed);
        if names.clone().count() > MAX_NAMED || !names.all(|name| is_name(name)) {
            return Err("a change names at most 16 rules");
        }
        Ok(())
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        wire::put_int(out, 1, self.revision);
        wire::put_bytes(out, 2, self.author.as_ref().map_or(&[][..], |node| node.as_bytes()));
        wire::put_int(out, 3, self.at.0);
        for (tag, names) in [(4, &self.added), (5, &self.changed), (6, &self.removed)] {
            for name in names {
                wire::put_item(out, tag, name.as_bytes());
            }
        }
        wire::put_int(out, 7, u64::from(self.reordered));
        wire::put_int(out, 8, u64::from(self.more));
    }

    pub(super) fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut change = Self::default();
        let mut fields = Fields::new(body);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => change.revision = value.int("revision")?,
                2 => change.author = Some(NodeId::from_bytes(value.array("author")?)),
                3 => change.at = UnixTime(value.int("time of a change")?),
                4..=6 => {
                    let list = match tag {
                        4 => &mut change.added,
                        5 => &mut change.changed,
                        _ => &mut change.removed,
                    };
                    if list.len() == MAX_NAMED {
                        return Err(DecodeError::TooLarge("change of rules"));
                    }
                    list.push(value.text("rule", MAX_NAME)?);
                }
                7 => change.reordered = value.int("order")? == 1,
                8 => {
                    let more = value.int("number of rules")?;
                    change.more = u32::try_from(more)
                        .map_err(|_| DecodeError::TooLarge("change of rules"))?;
                }
                tag => wire::unknown(tag)?,
            }
        }
        Ok(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, retries: u8) -> Rule {
        let then = super::super::Actions { retries: Some(retries), ..Default::default() };
        Rule { name: name.to_owned(), then, ..Rule::default() }
    }

    fn after(before: Option<&RuleSet>, rules: Vec<Rule>) -> RuleSet {
        let set = RuleSet::following(before, rules, NodeId::from_bytes([7; 32]), UnixTime(9));
        assert_eq!(set.check(), Ok(()));
        assert_eq!(RuleSet::decode(set.encode()), Ok(set.clone()));
        set
    }

    #[test]
    fn a_set_says_what_it_changed_and_what_those_before_it_did() {
        let first = after(None, vec![rule("a", 1), rule("b", 1)]);
        let second = after(Some(&first), vec![rule("b", 1), rule("a", 2), rule("c", 1)]);
        let third = after(Some(&second), Vec::new());
        assert_eq!((third.revision, third.history.len()), (3, 3));
        let [one, two, three] = &third.history[..] else { panic!("{third:?}") };
        assert_eq!((one.revision, one.added.join(" ")), (1, "a b".to_owned()));
        assert_eq!((one.author, one.at), (Some(NodeId::from_bytes([7; 32])), UnixTime(9)));
        assert_eq!(
            (&*two.added, &*two.changed, two.reordered),
            (&["c".into()][..], &["a".into()][..], true)
        );
        assert_eq!((three.removed.join(" "), three.reordered), ("b a c".to_owned(), false));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_gives_way_to_rules() {
        let mut set = after(None, Vec::new());
        for n in 0..30 {
            set = after(Some(&set), vec![rule("a", n % 2)]);
        }
        assert_eq!((set.history.len(), set.history[0].revision), (MAX_HISTORY, 12));
        let many: Vec<Rule> = (0..100).map(|n| rule(&format!("r{n}"), 1)).collect();
        let set = after(Some(&set), many.clone());
        let last = set.history.last().unwrap();
        assert_eq!((last.added.len(), last.more, last.removed.len()), (MAX_NAMED, 85, 0));

        let mut large = many;
        for rule in &mut large {
            let text = "x".repeat(620 - rule.name.len());
            let test = super::super::Test::Is(text);
            rule.when.headers.push(super::super::HeaderTest { name: "h".into(), test });
        }
        let set = after(Some(&set), large);
        assert!(set.history.len() < MAX_HISTORY, "{}", set.history.len());
    }
}
