//! Virtual addresses: one for each name of the network that was asked for, always the same one.
//!
//! ```text
//! name ── blake3 ──▶ a place in the range; taken by another: the next, up to PROBES
//! ```
//!
//! Whoever asks for the same names gets the same addresses, on every node and in every life of one.
//! Only where two names fall on one place does it matter which of them came first; those are
//! [pins](Places::pins), to be kept and given back at the next start, so that an address that a
//! program remembers never becomes that of another name.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Names with an address at a time. Each costs some 200 bytes, and up to
/// [`ports::PER_NAME`](super::ports) sockets.
const MAX_PLACES: usize = 4096;
/// Places tried for a name: more than are ever taken side by side where 4096 lie among millions.
const PROBES: u32 = 64;
/// Names kept for the next start. There are as many as there are pairs of names on one place: none, in
/// nearly every network.
pub(super) const MAX_PINS: usize = 256;

/// IPv4 addresses that begin alike: `127.64.0.0/10`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    base: u32,
    /// Bits that are the same in all.
    prefix: u8,
}

/// Of the loopback, which no other program uses and where a node may listen without any privilege:
/// every address of 127.0.0.0/8 is one of this machine (RFC 1122 §3.2.1.3).
pub(super) const RANGE: Range = Range { base: 0x7f40_0000, prefix: 10 };

impl Range {
    /// Whether an address is one of these.
    #[must_use]
    pub(super) fn contains(self, address: Ipv4Addr) -> bool {
        (u32::from(address) ^ self.base) >> (32 - u32::from(self.prefix)) == 0
    }

    /// How many there are, as a mask.
    fn mask(self) -> u32 {
        u32::MAX >> self.prefix
    }

    /// The one of this number. The first and the last 256 stay free, for what has to have an address
    /// that is known before.
    fn at(self, number: u32) -> Ipv4Addr {
        let room = self.mask() - 511;
        Ipv4Addr::from(self.base | (number % room + 256))
    }
}

/// What has to be known of them outside: the ranges of both families, as rules and routes have them.
pub const RANGES: (&str, &str) = ("127.64.0.0/10", "fd6d:6963:726f::/48");
/// Of the first addresses, which no name is given: where programs ask for names where only port 53 can
/// be said.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(127, 64, 0, 53);

/// Unique local addresses (RFC 4193) that stand for those of [`RANGE`], which they have as their last
/// four bytes.
const V6: [u16; 6] = [0xfd6d, 0x6963, 0x726f, 0, 0, 0];

/// The same place for programs that prefer IPv6.
#[must_use]
pub(super) fn v6(address: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = address.octets();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let [p, q, r, s, t, u] = V6;
    Ipv6Addr::new(p, q, r, s, t, u, high, low)
}

/// The place that an address is of, of either family.
#[must_use]
pub(super) fn place(address: IpAddr) -> Option<Ipv4Addr> {
    let place = match address.to_canonical() {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(v6) => {
            let [rest @ .., high, low] = v6.segments();
            let bytes = [high.to_be_bytes(), low.to_be_bytes()].concat();
            let bytes: [u8; 4] = bytes.try_into().ok()?;
            (rest == V6).then(|| Ipv4Addr::from(bytes))?
        }
    };
    RANGE.contains(place).then_some(place)
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

/// Who has which address.
#[derive(Debug)]
pub(super) struct Places {
    by_name: HashMap<Arc<str>, Place>,
    by_address: HashMap<Ipv4Addr, Arc<str>>,
    /// Counts questions: who asked longest ago is the one to go.
    asked: u64,
    pins: Vec<(String, Ipv4Addr)>,
    unsaved: bool,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    address: Ipv4Addr,
    asked: u64,
}

impl Places {
    /// Nobody has one, but what is `pinned` keeps its own: lines of a name and an address, as
    /// [`Places::pins`] wrote them. What cannot be read is left out.
    #[must_use]
    pub(super) fn new(pinned: &str) -> Self {
        let pin = |line: &str| {
            let (name, address) = line.split_once(' ')?;
            let address = address.parse().ok().filter(|address| RANGE.contains(*address))?;
            Some((name.to_owned(), address))
        };
        let pins = pinned.lines().filter_map(pin).take(MAX_PINS).collect();
        Self { by_name: HashMap::new(), by_address: HashMap::new(), asked: 0, pins, unsaved: false }
    }

    /// The address of a name (in small letters, without the zone), and the name that lost its own
    /// for it, if there was no room. `None`: all places near its own are taken.
    pub(super) fn of(&mut self, name: &str) -> Option<(Ipv4Addr, Option<Ipv4Addr>)> {
        self.asked += 1;
        if let Some(place) = self.by_name.get_mut(name) {
            place.asked = self.asked;
            return Some((place.address, None));
        }
        let address = self.free(name)?;
        let gone = if self.by_name.len() >= MAX_PLACES { self.forget_one() } else { None };
        let key: Arc<str> = name.into();
        self.by_name.insert(Arc::clone(&key), Place { address, asked: self.asked });
        self.by_address.insert(address, key);
        Some((address, gone))
    }

    /// Whose address this is.
    #[must_use]
    pub(super) fn name(&self, address: Ipv4Addr) -> Option<Arc<str>> {
        self.by_address.get(&address).cloned()
    }

    /// What to keep for the next start, if that has changed since it was asked last.
    pub(super) fn pins(&mut self) -> Option<String> {
        let line = |(name, address): &(String, Ipv4Addr)| format!("{name} {address}\n");
        std::mem::take(&mut self.unsaved).then(|| self.pins.iter().map(line).collect())
    }

    fn free(&mut self, name: &str) -> Option<Ipv4Addr> {
        if let Some((_, pinned)) = self.pins.iter().find(|(pinned, _)| pinned == name) {
            return Some(*pinned).filter(|address| !self.by_address.contains_key(address));
        }
        let first = first(name);
        let near = (0..PROBES).map(|step| RANGE.at(first.wrapping_add(step)));
        let is_pinned = |address| self.pins.iter().any(|(_, pinned)| *pinned == address);
        let is_free =
            |address: &Ipv4Addr| !self.by_address.contains_key(address) && !is_pinned(*address);
        let address = near.into_iter().find(is_free)?;
        let own = RANGE.at(first);
        // Another name lies on its place: from now on both stay where they are.
        if address != own && self.pins.len() + 2 <= MAX_PINS {
            if let Some(other) = self.by_address.get(&own) {
                self.pins.push((other.to_string(), own));
            }
            self.pins.push((name.to_owned(), address));
            self.unsaved = true;
        }
        Some(address)
    }

    /// Takes its address from the name that was asked for longest ago.
    fn forget_one(&mut self) -> Option<Ipv4Addr> {
        let oldest = self.by_name.iter().min_by_key(|(_, place)| place.asked);
        let (name, address) = oldest.map(|(name, place)| (Arc::clone(name), place.address))?;
        self.by_name.remove(&name);
        self.by_address.remove(&address);
        Some(address)
    }
}

/// The number of the place where a name lies first.
fn first(name: &str) -> u32 {
    let hash = blake3::hash(name.as_bytes());
    hash.as_bytes().first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Two names on one place, found by trying.
    fn twins() -> (String, String) {
        let mut seen = HashMap::new();
        for number in 0.. {
            let name = format!("s{number}");
            if let Some(other) = seen.insert(RANGE.at(first(&name)), name.clone()) {
                return (other, name);
            }
        }
        unreachable!("there are fewer places than numbers")
    }

    #[test]
    fn a_name_has_the_same_address_in_every_order_and_every_life() {
        let (mut one, mut two) = (Places::new(""), Places::new(""));
        let names = ["shop", "v2.shop", "db", "go.micro.srv.greeter"];
        let first: Vec<_> = names.iter().map(|name| one.of(name).unwrap().0).collect();
        let mut again: Vec<_> = names.iter().rev().map(|name| two.of(name).unwrap().0).collect();
        again.reverse();
        assert_eq!(first, again);
        assert!(first.iter().all(|address| RANGE.contains(*address)));
        assert_eq!(one.name(first[0]).as_deref(), Some("shop"));
        assert_eq!(one.pins(), None, "nothing is to be kept");
    }

    #[test]
    fn a_place_has_an_address_of_each_family() {
        let v4 = Places::new("").of("shop").unwrap().0;
        let both: [IpAddr; 2] = [v4.into(), v6(v4).into()];
        assert_eq!(both.map(place), [Some(v4); 2]);
        assert_eq!(RANGE.to_string(), RANGES.0);
        assert!(v6(v4).to_string().starts_with(RANGES.1.trim_end_matches("/48")));
        assert!((0..9999).all(|number| RANGE.at(number) != NAME_SERVER));
        for other in ["127.0.0.1", "fd6d:6963:726f::7f00:1", "fd6d:6963:726f:1::7f40:100", "::1"] {
            assert_eq!(place(other.parse().unwrap()), None, "{other}");
        }
    }

    #[test]
    fn names_that_fall_on_one_place_keep_theirs_over_a_restart() {
        let (a, b) = twins();
        let mut before = Places::new("");
        let (at_a, at_b) = (before.of(&a).unwrap().0, before.of(&b).unwrap().0);
        assert_ne!(at_a, at_b);
        let pins = before.pins().unwrap();
        assert_eq!(before.pins(), None);
        let mut after = Places::new(&pins);
        assert_eq!((after.of(&b).unwrap().0, after.of(&a).unwrap().0), (at_b, at_a));
        let mut odd = Places::new("shop\nshop x\nshop 10.0.0.1\n\u{0} 127.64.1.1");
        assert!(RANGE.contains(odd.of("shop").unwrap().0));
    }

    #[test]
    fn where_there_is_no_room_the_one_asked_for_longest_ago_goes() {
        let mut places = Places::new("");
        let first = places.of("n0").unwrap().0;
        for number in 1..MAX_PLACES {
            assert_eq!(places.of(&format!("n{number}")).unwrap().1, None);
        }
        assert_eq!(places.of("n0").unwrap(), (first, None), "asked again");
        let second = places.of("n1").unwrap().0;
        let _ = (2..MAX_PLACES).map(|number| places.of(&format!("n{number}"))).count();
        assert_eq!(places.of("n0").unwrap().1, None);
        assert_eq!(places.of("more").unwrap().1, Some(second));
        assert_eq!(places.name(second), None);
        assert_eq!(places.by_name.len(), places.by_address.len());
    }

    proptest! {
        #[test]
        fn no_two_names_share_an_address(names in prop::collection::btree_set("[a-z.]{1,8}", 1..200)) {
            let mut places = Places::new("");
            let mut seen = HashMap::new();
            for name in &names {
                let (address, _) = places.of(name).unwrap();
                prop_assert!(RANGE.contains(address));
                prop_assert_eq!(seen.insert(address, name.clone()), None);
            }
        }
    }
}
