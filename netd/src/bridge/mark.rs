//! Where a message has been: the mark that keeps bridges from carrying it in a circle.
//!
//! ```text
//! Micro-Bridge: place *( " " place )          the first is where it was published
//! place         "net:" id of the network  /  "nats:" name of the cluster
//! ```
//!
//! A network is one place however many nodes it has, and a cluster of NATS however many servers. A
//! bridge adds the place that a message comes from, and carries none to a place where it has been. So
//! each message comes to each place by a way that has no place twice, and there are finitely many.

use std::fmt;

use proto::NetworkId;

use crate::config::bridge::is_plain;

/// The header.
pub const HEADER: &str = "Micro-Bridge";
/// Places on the way of one message; after so many it is not carried on.
const MAX_PLACES: usize = 8;

/// A network, or a cluster of NATS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(String);

impl Place {
    /// A network of nodes.
    #[must_use]
    pub fn network(id: NetworkId) -> Self {
        Self(format!("net:{id}"))
    }

    /// A cluster of NATS, by its name or, where it has none, the id of its one server. The port for
    /// clients of NATS of a node has the id of its network there.
    #[must_use]
    pub fn nats(cluster: &str) -> Self {
        if let Ok(network) = cluster.parse() {
            return Self::network(network);
        }
        if is_plain(cluster) {
            return Self(format!("nats:{cluster}"));
        }
        // Whatever somebody called it: a text of ours that stands for it.
        let mut hash = blake3::hash(cluster.as_bytes()).to_hex().to_string();
        hash.truncate(32);
        Self(format!("nats:{hash}"))
    }

    /// The text, without blanks.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn read(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':')?;
        (matches!(kind, "net" | "nats") && is_plain(name)).then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a message is not carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It has been there.
    Been,
    /// It has been at as many places as it may.
    Far,
    /// Its mark is none of ours.
    Unreadable,
}

/// The mark of a message that goes from one place to another: `marks` are those it has, of which
/// there should be one at most.
///
/// # Errors
/// [`Stop`] when it is not to go there.
pub fn onward<'a>(
    marks: impl IntoIterator<Item = &'a [u8]>,
    from: &Place,
    to: &Place,
) -> Result<String, Stop> {
    let mut way = Vec::new();
    for mark in marks {
        let mark = std::str::from_utf8(mark).map_err(|_| Stop::Unreadable)?;
        for place in mark.split_ascii_whitespace() {
            way.push(Place::read(place).ok_or(Stop::Unreadable)?);
            if way.len() > MAX_PLACES {
                return Err(Stop::Far);
            }
        }
    }
    if way.contains(to) || from == to {
        return Err(Stop::Been);
    }
    if !way.contains(from) {
        way.push(from.clone());
    }
    if way.len() > MAX_PLACES {
        return Err(Stop::Far);
    }
    Ok(way.iter().map(Place::as_str).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(byte: u8) -> Place {
        Place::network(NetworkId::from_bytes([byte; 32]))
    }

    #[test]
    fn a_message_goes_on_and_never_back() {
        let (here, there, beyond) = (net(1), Place::nats("prod"), net(2));
        let first = onward([], &here, &there).unwrap();
        assert_eq!(first, here.as_str());
        let second = onward([first.as_bytes()], &there, &beyond).unwrap();
        assert_eq!(second, format!("{here} {there}"));
        assert_eq!(onward([first.as_bytes()], &there, &here), Err(Stop::Been));
        assert_eq!(onward([second.as_bytes()], &beyond, &there), Err(Stop::Been));
        assert_eq!(onward([], &here, &here), Err(Stop::Been), "a bridge from a place to itself");
    }

    #[test]
    fn a_way_has_an_end_and_what_is_no_mark_goes_nowhere() {
        let mut mark = String::new();
        for step in 0..MAX_PLACES {
            let (from, to) = (Place::nats(&step.to_string()), Place::nats(&(step + 1).to_string()));
            mark = onward([mark.as_bytes()], &from, &to).unwrap();
        }
        assert_eq!(onward([mark.as_bytes()], &net(1), &net(2)), Err(Stop::Far));
        for bad in [&b"x"[..], b"net:", b"else:a", b"nats:a/b", b"\xff"] {
            assert_eq!(onward([bad], &net(1), &net(2)), Err(Stop::Unreadable), "{bad:?}");
        }
    }

    #[test]
    fn two_networks_bridged_by_two_clusters_end_every_message() {
        // a - s - b - t - a: each message is carried as far as it goes, by every bridge there is.
        let (a, b, s, t) = (net(1), net(2), Place::nats("s"), Place::nats("t"));
        let bridges = [(&a, &s), (&a, &t), (&b, &s), (&b, &t)];
        let mut on_the_way = vec![(a.clone(), String::new())];
        let mut seen = 0;
        while let Some((at, mark)) = on_the_way.pop() {
            seen += 1;
            assert!(seen < 100, "it goes in a circle");
            for (one, other) in bridges {
                for (from, to) in [(one, other), (other, one)] {
                    let marks = Some(mark.as_bytes()).filter(|mark| !mark.is_empty());
                    if *from == at
                        && let Ok(mark) = onward(marks, from, to)
                    {
                        on_the_way.push((to.clone(), mark));
                    }
                }
            }
        }
        assert_eq!(seen, 7, "a; s b t and t b s: each way once, and home never");
    }

    #[test]
    fn a_cluster_of_any_name_is_a_place() {
        assert_eq!(Place::nats("prod").as_str(), "nats:prod");
        let odd = Place::nats("of \r\n all sorts");
        assert_eq!(Place::read(odd.as_str()), Some(odd));
        let id = NetworkId::from_bytes([7; 32]);
        assert_eq!(Place::nats(&id.to_string()), Place::network(id));
    }

    proptest::proptest! {
        #[test]
        fn any_mark_is_read_or_refused(mark: Vec<u8>) {
            let _ = onward([&mark[..]], &net(1), &net(2));
        }
    }
}
