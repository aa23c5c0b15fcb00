//! What was announced and still holds.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use proxy::foreign::mdns::Heard;
use tokio::time::Instant;

use super::super::entry::Read;
use super::super::table::MAX_ENTRIES;

/// Services that are asked for.
const MAX_SERVICES: usize = 1024;
/// An announcement holds at least so long: it is asked for again before.
const SHORTEST: Duration = Duration::from_secs(60);
/// And at most, whatever it says.
const LONGEST: Duration = Duration::from_secs(3600);

/// Announcements by name.
#[derive(Debug, Default)]
pub(super) struct Seen {
    instances: HashMap<String, (Instant, Read)>,
    services: BTreeSet<String>,
}

/// What has changed.
#[derive(Debug, PartialEq)]
pub(super) enum Change {
    Put(String, Read),
    Gone(String),
}

impl Seen {
    /// Takes note of a packet. Gives what has changed, and whether there is a service that was not
    /// asked for yet.
    pub(super) fn hear(&mut self, heard: Heard, now: Instant) -> (Vec<Change>, bool) {
        let mut changes = Vec::new();
        for one in heard.instances {
            if one.ttl == 0 {
                changes.extend(self.instances.remove(&one.name).map(|_| Change::Gone(one.name)));
                continue;
            }
            let known = self.instances.get(&one.name);
            if known.is_none() && self.instances.len() >= MAX_ENTRIES {
                continue;
            }
            let holds = Duration::from_secs(one.ttl.into()).clamp(SHORTEST, LONGEST);
            if known.is_none_or(|(_, read)| *read != one.read) {
                changes.push(Change::Put(one.name.clone(), one.read.clone()));
            }
            self.instances.insert(one.name, (now + holds, one.read));
        }
        let mut more = false;
        for service in heard.services {
            if self.services.len() < MAX_SERVICES {
                more |= self.services.insert(service);
            }
        }
        (changes, more)
    }

    /// Forgets what nobody has renewed.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Change> {
        let out = self.instances.extract_if(|_, (until, _)| *until <= now);
        out.map(|(name, _)| Change::Gone(name)).collect()
    }

    /// Everything that holds.
    pub(super) fn all(&self) -> Vec<(String, Read)> {
        self.instances.iter().map(|(name, (_, read))| (name.clone(), read.clone())).collect()
    }

    /// Services that were listed.
    pub(super) fn services(&self) -> impl Iterator<Item = &str> {
        self.services.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use proxy::foreign::mdns::Announced;

    use super::super::super::entry::tests::registration;
    use super::*;

    fn heard(name: &str, ttl: u32, address: &str) -> Heard {
        let read = Ok(registration("s", name, address));
        let one = Announced { name: name.to_owned(), ttl, read };
        Heard { instances: vec![one], services: vec!["s".to_owned()] }
    }

    #[test]
    fn an_announcement_holds_until_it_takes_leave_or_nobody_renews_it() {
        let (mut seen, now) = (Seen::default(), Instant::now());
        let (changes, more) = seen.hear(heard("a", 120, "10.0.0.1:1"), now);
        assert_eq!((changes.len(), more), (1, true));
        let again = seen.hear(heard("a", 120, "10.0.0.1:1"), now + Duration::from_secs(100));
        assert_eq!(again, (vec![], false), "only renewed");
        let moved = seen.hear(heard("a", 120, "10.0.0.2:1"), now + Duration::from_secs(100));
        assert!(matches!(&moved.0[..], [Change::Put(name, Ok(_))] if name == "a"));
        assert_eq!(seen.expire(now + Duration::from_secs(219)), []);
        assert_eq!(seen.all().len(), 1);
        let out = seen.expire(now + Duration::from_secs(220));
        assert_eq!(out, [Change::Gone("a".to_owned())]);
        seen.hear(heard("b", 1, "10.0.0.1:2"), now);
        assert_eq!(seen.expire(now + Duration::from_secs(59)), [], "it was not asked for since");
        let left = seen.hear(heard("b", 0, "10.0.0.1:2"), now).0;
        assert_eq!(left, [Change::Gone("b".to_owned())]);
        assert_eq!(seen.hear(heard("b", 0, "10.0.0.1:2"), now).0, [], "twice is once");
        assert_eq!(seen.services().collect::<Vec<_>>(), ["s"]);
    }

    #[test]
    fn who_announces_without_end_is_not_remembered_without_end() {
        let (mut seen, now) = (Seen::default(), Instant::now());
        for n in 0..MAX_ENTRIES + 10 {
            let mut one = heard(&format!("i{n}"), 120, "10.0.0.1:1");
            one.services = vec![format!("s{n}")];
            seen.hear(one, now);
        }
        assert_eq!(seen.all().len(), MAX_ENTRIES);
        assert_eq!(seen.services().count(), MAX_SERVICES);
    }
}
