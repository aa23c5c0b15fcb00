//! What one back end has said, and what of it this node offers: a pure core, told what happens and when.
//!
//! ```text
//! heard (listings, changes, trouble) ──▶ known ──▶ changes, gathered and damped ──▶ the router
//!                                          ▲                                           │
//!                                          └───────────── settled: yes, or why not ◀───┘
//! ```
//!
//! **Nothing is withdrawn because a back end is silent.** What it said stays, marked; when it answers
//! again, what its listing does not have goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proto::{LabelSet, ServiceName, Time};
use router::Registration;

use super::damp::Flaps;
use super::entry::{BACKEND, Read, STALE, cut};
use super::standing::{Standing, Trouble};

/// Entries of one back end that are known, those that are skipped included. More are counted;
/// they are found again with the next listing.
pub(super) const MAX_ENTRIES: usize = 20_000;
/// With those that are gone and remembered.
const MAX_KNOWN: usize = 2 * MAX_ENTRIES;
/// Bytes of the name of an entry.
const MAX_KEY: usize = 1024;
/// How long changes gather before they become records: a burst becomes one record a service.
const GATHER: Duration = Duration::from_millis(100);
/// How often what is offered is compared with what should be: a program may have taken its place, or
/// have left it; a refusal may not hold any more.
const RECHECK: Duration = Duration::from_secs(30);

/// What a back end says.
#[derive(Debug)]
pub(super) enum Heard {
    /// Everything there is: what is not in it is gone.
    All(Vec<(String, Read)>),
    /// One entry, new or changed.
    Put(String, Read),
    /// An entry is gone.
    Gone(String),
    /// It cannot be watched now.
    Lost(Trouble),
}

/// What is to be told to the router of one service.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) service: ServiceName,
    pub(super) put: Vec<Put>,
    /// Entries with the ids of their instances.
    pub(super) away: Vec<(Key, String)>,
}

/// One instance to be offered.
#[derive(Clone, Debug)]
pub(super) struct Put {
    pub(super) key: Key,
    /// As the back end says it.
    pub(super) said: Arc<Registration>,
    /// As others are to see it.
    pub(super) marked: Registration,
    stale: bool,
}

pub(super) type Key = Arc<str>;
type Id = (ServiceName, String);

#[derive(Clone, Debug, PartialEq)]
enum Said {
    Instance(Arc<Registration>),
    /// An instance that another entry has already, and why it is skipped.
    Second(Arc<Registration>, Arc<str>),
    Skipped(Arc<str>),
}

#[derive(Debug, Default)]
struct Known {
    /// Nothing: it is gone, and remembered for its flaps or until it is withdrawn.
    said: Option<Said>,
    /// What the router has of it, and whether that is marked as stale.
    offered: Option<(Arc<Registration>, bool)>,
    /// Why the router does not have it.
    refused: Option<Arc<str>>,
    flaps: Flaps,
}

/// The entries of one back end.
#[derive(Debug)]
pub(super) struct Table {
    name: Arc<str>,
    known: BTreeMap<Key, Known>,
    /// How many of them are there, and not only remembered.
    live: usize,
    /// Which entry has an instance, by service and id.
    owners: BTreeMap<Id, Key>,
    /// Which others would have it.
    waiting: BTreeMap<Id, BTreeSet<Key>>,
    dirty: BTreeSet<Key>,
    held: BTreeSet<Key>,
    gathered: Option<Time>,
    recheck: Time,
    standing: Standing,
    /// Why all is marked as stale, while it is.
    mark: Option<Arc<str>>,
    beyond: u64,
}

/// Numbers and names, to be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Instances it has.
    pub entries: u64,
    /// Of those, offered by this node.
    pub offered: u64,
    /// What it has that is no instance, is refused, or is beyond the limit.
    pub skipped: u64,
    /// Of the instances, held back because they flap.
    pub held: u64,
    /// Some of those skipped, each with the reason.
    pub examples: Vec<(String, String)>,
}

/// How many of the skipped are named.
const EXAMPLES: usize = 16;

impl Table {
    /// Of the back end called `name`, of which nothing is known yet.
    pub(super) fn new(name: &str, now: Time) -> Self {
        Self {
            name: name.into(),
            known: BTreeMap::new(),
            live: 0,
            owners: BTreeMap::new(),
            waiting: BTreeMap::new(),
            dirty: BTreeSet::new(),
            held: BTreeSet::new(),
            gathered: None,
            recheck: now + RECHECK,
            standing: Standing::starting(now),
            mark: None,
            beyond: 0,
        }
    }

    /// How it is.
    pub(super) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Takes note of what the back end says.
    pub(super) fn heard(&mut self, heard: Heard, now: Time) {
        match heard {
            Heard::All(all) => {
                self.standing.found(now);
                self.beyond = 0;
                let there: BTreeSet<&str> = all.iter().map(|(key, _)| key.as_str()).collect();
                let is_gone = |(key, known): &(&Key, &Known)| {
                    known.said.is_some() && !there.contains(&***key)
                };
                let gone: Vec<Key> =
                    self.known.iter().filter(is_gone).map(|(key, _)| Arc::clone(key)).collect();
                gone.iter().for_each(|key| self.unsay(key, now));
                drop(there);
                for (key, read) in all {
                    self.say(&key, read, now);
                }
            }
            Heard::Put(key, read) => self.say(&key, read, now),
            Heard::Gone(key) => self.unsay(&key, now),
            Heard::Lost(trouble) => self.standing.lost(trouble, now),
        }
    }

    fn say(&mut self, key: &str, read: Read, now: Time) {
        let before = self.known.get(key);
        let (is_new, is_live) = (before.is_none(), before.is_some_and(|one| one.said.is_some()));
        let full = !is_live && self.live >= MAX_ENTRIES || is_new && self.known.len() >= MAX_KNOWN;
        if key.len() > MAX_KEY || full {
            self.beyond = self.beyond.saturating_add(1);
            return;
        }
        let key: Key = key.into();
        let mut said = match read {
            Ok(registration) => Said::Instance(Arc::new(registration)),
            Err(why) => Said::Skipped(cut(&why).into()),
        };
        if let Said::Instance(registration) = &said {
            let id = id_of(registration);
            match self.owners.get(&id) {
                Some(other) if *other != key => {
                    let why = format!("the same service and id as {other}");
                    let second = Said::Second(Arc::clone(registration), cut(&why).into());
                    self.waiting.entry(id).or_default().insert(Arc::clone(&key));
                    said = second;
                }
                Some(_) | None => drop(self.owners.insert(id, Arc::clone(&key))),
            }
        }
        let known = self.known.entry(Arc::clone(&key)).or_default();
        if known.said.as_ref() == Some(&said) {
            return;
        }
        let before = known.said.replace(said);
        self.live += usize::from(before.is_none());
        if !is_new {
            known.flaps.hit(now);
        }
        known.refused = None;
        self.disown(&key, before, now);
        self.touch(key, now);
    }

    fn unsay(&mut self, key: &str, now: Time) {
        let Some((key, known)) = self.known.get_key_value(key) else { return };
        if known.said.is_none() {
            return;
        }
        let key = Arc::clone(key);
        let Some(known) = self.known.get_mut(&key) else { return };
        let before = known.said.take();
        self.live -= 1;
        known.flaps.hit(now);
        known.refused = None;
        self.disown(&key, before, now);
        self.touch(key, now);
    }

    /// Lets others have the id that an entry had, or waited for, before, unless it does still.
    fn disown(&mut self, key: &Key, before: Option<Said>, now: Time) {
        let (Some(Said::Instance(before)) | Some(Said::Second(before, _))) = before else { return };
        let id = id_of(&before);
        let said = self.known.get(key).and_then(|known| known.said.as_ref());
        let (has, waits) = match said {
            Some(Said::Instance(said)) => (id_of(said) == id, false),
            Some(Said::Second(said, _)) => (false, id_of(said) == id),
            Some(Said::Skipped(_)) | None => (false, false),
        };
        if !waits && let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.remove(key);
            if waiting.is_empty() {
                self.waiting.remove(&id);
            }
        }
        if !has && self.owners.get(&id) == Some(key) {
            self.owners.remove(&id);
            self.hand_over(id, now);
        }
    }

    /// Gives an id that is free to the first of those who wait for it.
    fn hand_over(&mut self, id: Id, now: Time) {
        let Some(waiting) = self.waiting.get_mut(&id) else { return };
        let next = waiting.pop_first();
        if waiting.is_empty() {
            self.waiting.remove(&id);
        }
        let Some(next) = next else { return };
        let Some(known) = self.known.get_mut(&next) else { return };
        if let Some(Said::Second(registration, _)) = known.said.take() {
            known.said = Some(Said::Instance(registration));
            self.owners.insert(id, Arc::clone(&next));
            self.touch(next, now);
        }
    }

    fn touch(&mut self, key: Key, now: Time) {
        self.dirty.insert(key);
        self.gathered.get_or_insert(now + GATHER);
    }

    /// When [`Table::changes`] is to be asked next.
    pub(super) fn due(&self) -> Time {
        let calm = self.held.iter().filter_map(|key| self.known.get(key)?.flaps.calm_at()).min();
        let (marks, marked) = (self.standing.marks_at(), self.mark.is_some());
        let mark = if marked { marks.is_none().then_some(self.standing.since) } else { marks };
        [self.gathered, calm, mark].into_iter().flatten().fold(self.recheck, Time::min)
    }

    /// What is to be told to the router now, a service each; each is to be [`Table::settled`].
    ///
    /// `is_ours` says whether the router offers an instance, by service and id, for this back end.
    pub(super) fn changes(
        &mut self,
        now: Time,
        is_ours: impl Fn(&ServiceName, &str) -> bool,
    ) -> Vec<Change> {
        self.remark(now);
        if self.recheck <= now {
            self.recheck = now + RECHECK;
            self.compare(now, is_ours);
        }
        let mut keys = BTreeSet::new();
        if self.gathered.is_some_and(|at| at <= now) {
            self.gathered = None;
            keys = std::mem::take(&mut self.dirty);
        }
        let calm = |key: &Key| {
            self.known.get(key).and_then(|known| known.flaps.calm_at()).is_none_or(|at| at <= now)
        };
        keys.extend(self.held.iter().filter(|key| calm(key)).cloned());
        let mut changes: BTreeMap<ServiceName, Change> = BTreeMap::new();
        for key in keys {
            self.change(key, now, &mut changes);
        }
        changes.into_values().collect()
    }

    fn change(&mut self, key: Key, now: Time, all: &mut BTreeMap<ServiceName, Change>) {
        self.held.remove(&key);
        let Some(known) = self.known.get_mut(&key) else { return };
        let stale = self.mark.is_some();
        let wanted = match &known.said {
            Some(Said::Instance(said)) if !known.flaps.holds(now) => Some(Arc::clone(said)),
            Some(Said::Instance(said)) => {
                self.held.insert(Arc::clone(&key));
                // What it was before it began to flap, if that is the same instance.
                let offered = known.offered.as_ref().map(|(offered, _)| offered);
                offered.filter(|offered| id_of(offered) == id_of(said)).cloned()
            }
            Some(Said::Second(..) | Said::Skipped(_)) | None => None,
        };
        let left = known.offered.as_ref().map(|(offered, _)| offered);
        if let Some(left) = left
            && wanted.as_ref().is_none_or(|wanted| id_of(wanted) != id_of(left))
        {
            change_of(all, &left.service).away.push((Arc::clone(&key), left.instance.id.clone()));
        }
        match wanted {
            Some(said) if known.offered.as_ref() != Some(&(Arc::clone(&said), stale)) => {
                let marked = marked(&said, &self.name, self.mark.as_deref());
                change_of(all, &said.service).put.push(Put { key, said, marked, stale });
            }
            Some(_) => {}
            None if known.said.is_none()
                && known.offered.is_none()
                && known.flaps.is_nothing(now) =>
            {
                self.known.remove(&key);
            }
            None => {}
        }
    }

    /// What became of a change: of each entry, whether the router has it, or why not.
    pub(super) fn settled(&mut self, put: &Put, outcome: Result<(), String>) {
        let Some(known) = self.known.get_mut(&put.key) else { return };
        match outcome {
            Ok(()) => {
                known.offered = Some((Arc::clone(&put.said), put.stale));
                known.refused = None;
            }
            Err(why) => known.refused = Some(cut(&why).into()),
        }
    }

    /// An entry is withdrawn.
    pub(super) fn withdrawn(&mut self, key: &Key, id: &str) {
        let Some(known) = self.known.get_mut(key) else { return };
        if known.offered.as_ref().is_some_and(|(offered, _)| offered.instance.id == id) {
            known.offered = None;
        }
    }

    /// Marks all, or none, by how the back end is now.
    fn remark(&mut self, now: Time) {
        let marks = self.standing.marks_at().is_some_and(|at| at <= now);
        if marks == self.mark.is_some() {
            return;
        }
        self.mark = marks.then(|| self.standing.why.as_deref().unwrap_or("it is silent").into());
        let offered = self.known.iter().filter(|(_, known)| known.offered.is_some());
        self.dirty.extend(offered.map(|(key, _)| Arc::clone(key)));
        if !self.dirty.is_empty() {
            self.gathered.get_or_insert(now);
        }
    }

    /// Finds what is not as it should be, and forgets what has been calm for long.
    fn compare(&mut self, now: Time, is_ours: impl Fn(&ServiceName, &str) -> bool) {
        for (key, known) in &mut self.known {
            let lost = known
                .offered
                .as_ref()
                .is_some_and(|(offered, _)| !is_ours(&offered.service, &offered.instance.id));
            if lost {
                known.offered = None;
            }
            if lost || known.refused.is_some() || known.said.is_none() {
                self.dirty.insert(Arc::clone(key));
            }
        }
        if !self.dirty.is_empty() {
            self.gathered.get_or_insert(now);
        }
    }

    /// Numbers and names, to be shown.
    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts { skipped: self.beyond, ..Counts::default() };
        for (key, known) in &self.known {
            let why = match (&known.said, &known.refused) {
                (None, _) => continue,
                (Some(Said::Second(_, why) | Said::Skipped(why)), _)
                | (Some(Said::Instance(_)), Some(why)) => Some(why),
                (Some(Said::Instance(_)), None) => None,
            };
            counts.entries += u64::from(matches!(known.said, Some(Said::Instance(_))));
            counts.offered += u64::from(known.offered.is_some());
            counts.skipped += u64::from(why.is_some());
            if let Some(why) = why.filter(|_| counts.examples.len() < EXAMPLES) {
                counts.examples.push((key.to_string(), why.to_string()));
            }
        }
        counts.held = self.held.len() as u64;
        if self.beyond > 0 {
            let why = format!("{} more than the {MAX_ENTRIES} that are kept", self.beyond);
            counts.examples.insert(0, ("(beyond)".to_owned(), why));
        }
        counts
    }
}

fn id_of(registration: &Registration) -> Id {
    (registration.service.clone(), registration.instance.id.clone())
}

/// The change of a service, made where there is none yet.
fn change_of<'a>(
    all: &'a mut BTreeMap<ServiceName, Change>,
    service: &ServiceName,
) -> &'a mut Change {
    let new = || Change { service: service.clone(), put: Vec::new(), away: Vec::new() };
    all.entry(service.clone()).or_insert_with(new)
}

/// As others are to see it.
fn marked(said: &Registration, backend: &str, stale: Option<&str>) -> Registration {
    let stale = stale.map(|why| (STALE, why));
    let marks: LabelSet = [(BACKEND, backend)].into_iter().chain(stale).collect();
    let mut marked = said.clone();
    marked.instance.metadata = marked.instance.metadata.overlaid(&marks);
    marked
}

#[cfg(test)]
#[path = "table/tests.rs"]
mod tests;
