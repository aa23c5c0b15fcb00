//! Whether a link is alive, used, wanted: decided here, without a clock or a socket.
//!
//! ```text
//!            heard                        silent under probes
//!   Live  <─────────  Suspected   Live  ──────────────────────>  Suspected
//!   any   ──> Closed:  grant over · nothing calls it (call links) · drained, or grace is over
//! ```
//!
//! A probe is a ping, and every packet that arrives is an answer to it. While the link is used,
//! everything that is sent counts as a probe, so a black hole under traffic is noticed in less
//! than a second; where nobody is waiting, probes are rarer.

use std::collections::VecDeque;
use std::time::Duration;

use proto::Time;

use crate::close::Close;

/// Between two looks at a link that is used.
const LOOK: Duration = Duration::from_millis(100);
/// Between two pings of a link that is used, and of any that is suspected.
const PING: Duration = Duration::from_millis(300);
/// Between two pings of a neighbour's link that is not used.
const PING_IDLE: Duration = Duration::from_secs(1);
/// Between two looks at a link that nobody uses and nobody needs.
const LOOK_IDLE: Duration = Duration::from_secs(2);
/// Unanswered for so long, and a round trip, used: suspected. What was answered just before is
/// noticed up to two looks later, and it stays below a second.
const PATIENCE: Duration = Duration::from_millis(650);
/// The same where it is not used.
const PATIENCE_IDLE: Duration = Duration::from_millis(1500);
/// Unanswered for so long, and a round trip: from now on a ping at each look, so that a few
/// packets that are lost make no suspicion.
const DOUBT: Duration = Duration::from_millis(150);
/// Pings that must be unanswered, whatever the time.
const PINGS: u32 = 4;
/// Pings unanswered although other things arrive: what is sent from here does not, and the link is
/// suspected as well.
const DEAF: u32 = 8;
/// After its last packet of a call, a link is used for so long.
const USED: Duration = Duration::from_secs(2);
/// A neighbour's link stays attentive for so long after it was used.
const ATTENTIVE: Duration = Duration::from_secs(10);

/// What a look at a link shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// Packets received since it began.
    pub(crate) packets_in: u64,
    /// Packets sent since it began.
    pub(crate) packets_out: u64,
    /// Halves of streams that are open now.
    pub(crate) streams: usize,
    /// Streams since it began.
    pub(crate) calls: u64,
    /// Smoothed round trip.
    pub(crate) rtt: Duration,
}

/// What happened to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// A look at it.
    Look(Look),
    /// A sign of life that need not wait for the next look.
    Heard,
    /// A ping was answered: what is sent arrives, too.
    Answered,
    /// Not to be used for new calls; closed for this reason when the last has ended.
    Drain(Close),
    /// The peer has shown a grant that ends at this moment.
    Renewed { until: Time },
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Send a ping with this number.
    Ping(u64),
    /// New calls go elsewhere.
    Suspected,
    /// New calls may use it again.
    Recovered,
    /// Nothing more happens on this link.
    Close(Close),
}

/// What sort of link it is, and its terms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Records flow over it: it is kept although nobody calls.
    pub(crate) neighbour: bool,
    /// A link that is not a neighbour's is closed when nobody used it for so long.
    pub(crate) idle: Duration,
    /// What is drained is closed at the latest after so long.
    pub(crate) grace: Duration,
    /// The end of the peer's grant.
    pub(crate) until: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Live,
    Suspected,
    Closed,
}

/// One link.
#[derive(Debug)]
pub(crate) struct Machine {
    terms: Terms,
    state: State,
    draining: Option<(Close, Time)>,
    last: Look,
    /// Since when a call was last seen on it.
    used_at: Time,
    /// Since when it has been sending without an answer.
    unanswered: Option<Time>,
    /// Pings since the last answer to one.
    pings_unanswered: u32,
    pinged_at: Time,
    pings: u64,
    looked_at: Time,
    outputs: VecDeque<Output>,
}

impl Machine {
    pub(crate) fn new(terms: Terms, now: Time) -> Self {
        Self {
            terms,
            state: State::Live,
            draining: None,
            last: Look::default(),
            used_at: now,
            unanswered: None,
            pings_unanswered: 0,
            pinged_at: now,
            pings: 0,
            looked_at: now,
            outputs: VecDeque::new(),
        }
    }

    /// Takes what happened; then [`Machine::poll_output`] is to be drained.
    pub(crate) fn handle(&mut self, input: Input, now: Time) {
        if self.state == State::Closed {
            return;
        }
        match input {
            Input::Look(look) => self.look(look, now),
            Input::Heard => self.heard(),
            Input::Answered => {
                self.pings_unanswered = 0;
                self.heard();
            }
            Input::Drain(close) => {
                self.draining.get_or_insert((close, now + self.terms.grace));
            }
            Input::Renewed { until } => self.terms.until = until,
        }
        self.decide(now);
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When the next [`Input::Look`] is due; `None` once closed.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        let every = match self.state {
            State::Closed => return None,
            State::Suspected => PING,
            _ if self.is_used(self.looked_at) || self.draining.is_some() => LOOK,
            State::Live if self.unanswered.is_some() => LOOK,
            State::Live if self.is_attentive(self.looked_at) => PING,
            State::Live if self.terms.neighbour => PING_IDLE,
            State::Live => LOOK_IDLE,
        };
        Some(self.looked_at + every)
    }

    fn look(&mut self, look: Look, now: Time) {
        let last = std::mem::replace(&mut self.last, look);
        if look.streams > 0 || last.streams > 0 || look.calls > last.calls {
            self.used_at = now;
        }
        self.looked_at = now;
        if look.packets_in > last.packets_in {
            self.heard();
        } else if look.packets_out > last.packets_out {
            self.unanswered.get_or_insert(now);
        }
    }

    fn heard(&mut self) {
        self.unanswered = None;
        if self.state == State::Suspected && self.pings_unanswered < DEAF {
            self.state = State::Live;
            self.outputs.push_back(Output::Recovered);
        }
    }

    fn decide(&mut self, now: Time) {
        if now >= self.terms.until {
            return self.close(Close::Expired);
        }
        if let Some((close, until)) = self.draining {
            if self.last.streams == 0 {
                return self.close(close);
            } else if now >= until {
                return self.close(Close::Overdue);
            }
        }
        let idle = !self.terms.neighbour && self.last.streams == 0;
        if idle && now.since(self.used_at) >= self.terms.idle {
            return self.close(Close::Idle);
        }
        let patience = if self.is_used(now) { PATIENCE } else { PATIENCE_IDLE };
        let silent = self.pings_unanswered >= PINGS
            && self.unanswered.is_some_and(|since| now.since(since) >= patience + self.last.rtt);
        if self.state == State::Live && (silent || self.pings_unanswered >= DEAF) {
            self.state = State::Suspected;
            self.outputs.push_back(Output::Suspected);
        }
        if let Some(every) = self.ping_every(now)
            && now.since(self.pinged_at) >= every
        {
            self.pinged_at = now;
            self.pings += 1;
            self.pings_unanswered += 1;
            self.unanswered.get_or_insert(now);
            self.outputs.push_back(Output::Ping(self.pings));
        }
    }

    /// `None`: nobody needs to know.
    fn ping_every(&self, now: Time) -> Option<Duration> {
        let doubt = |since| now.since(since) >= DOUBT + self.last.rtt;
        if self.state == State::Live && self.unanswered.is_some_and(doubt) {
            Some(LOOK)
        } else if self.state == State::Suspected || self.is_used(now) || self.is_attentive(now) {
            Some(PING)
        } else if self.terms.neighbour {
            Some(PING_IDLE)
        } else {
            None
        }
    }

    fn is_used(&self, now: Time) -> bool {
        self.last.streams > 0 || now.since(self.used_at) < USED
    }

    fn is_attentive(&self, now: Time) -> bool {
        self.terms.neighbour && now.since(self.used_at) < ATTENTIVE
    }

    fn close(&mut self, close: Close) {
        self.state = State::Closed;
        self.outputs.push_back(Output::Close(close));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(20);

    fn terms() -> Terms {
        Terms {
            neighbour: false,
            idle: Duration::from_secs(60),
            grace: Duration::from_secs(5),
            until: Time::ZERO + Duration::from_secs(3600),
        }
    }

    /// A link on a path that answers every ping at once while `heard`.
    struct Path {
        machine: Machine,
        now: Time,
        packets_in: u64,
        packets_out: u64,
        streams: usize,
        answers: bool,
        seen: Vec<(Duration, Output)>,
    }

    impl Path {
        fn new(terms: Terms) -> Self {
            Self {
                machine: Machine::new(terms, Time::ZERO),
                now: Time::ZERO,
                packets_in: 0,
                packets_out: 0,
                streams: 0,
                answers: true,
                seen: Vec::new(),
            }
        }

        fn run(&mut self, length: Duration) {
            let end = self.now + length;
            while let Some(next) = self.machine.poll_timeout().filter(|next| *next <= end) {
                self.now = next;
                if self.streams > 0 {
                    self.packets_out += 1;
                    self.packets_in += u64::from(self.answers);
                }
                let look = Look {
                    packets_in: self.packets_in,
                    packets_out: self.packets_out,
                    streams: self.streams,
                    calls: self.streams as u64,
                    rtt: RTT,
                };
                self.handle(Input::Look(look));
            }
            self.now = end;
        }

        fn handle(&mut self, input: Input) {
            self.machine.handle(input, self.now);
            while let Some(output) = self.machine.poll_output() {
                self.seen.push((self.now.since(Time::ZERO), output));
                if let Output::Ping(_) = output {
                    self.packets_out += 1;
                    self.packets_in += u64::from(self.answers);
                    if self.answers {
                        self.machine.handle(Input::Answered, self.now);
                    }
                }
            }
        }

        fn count(&self, wanted: Output) -> usize {
            self.seen.iter().filter(|(_, output)| *output == wanted).count()
        }

        fn when(&self, wanted: Output) -> Option<Duration> {
            self.seen.iter().find(|(_, output)| *output == wanted).map(|(when, _)| *when)
        }
    }

    #[test]
    fn a_black_hole_under_traffic_is_suspected_within_a_second_whenever_it_begins() {
        for offset in 0..400 {
            let mut path = Path::new(terms());
            path.streams = 3;
            path.run(Duration::from_millis(5_000 + offset));
            assert_eq!(path.count(Output::Suspected), 0);
            let began = path.now.since(Time::ZERO);
            path.answers = false;
            path.run(Duration::from_secs(2));
            let noticed = path.when(Output::Suspected).expect("it is noticed") - began;
            assert!(noticed < Duration::from_secs(1), "offset {offset}: {noticed:?}");
        }
    }

    #[test]
    fn a_neighbour_nobody_calls_is_suspected_within_five_seconds() {
        let mut path = Path::new(Terms { neighbour: true, ..terms() });
        path.run(Duration::from_secs(60));
        path.answers = false;
        path.run(Duration::from_secs(5));
        assert_eq!(path.count(Output::Suspected), 1);
    }

    #[test]
    fn the_first_sign_of_life_ends_suspicion() {
        let mut path = Path::new(terms());
        path.streams = 1;
        path.run(Duration::from_secs(1));
        path.answers = false;
        path.run(Duration::from_secs(5));
        path.handle(Input::Answered);
        assert_eq!(path.count(Output::Suspected), 1);
        assert_eq!(path.count(Output::Recovered), 1);
    }

    #[test]
    fn a_path_that_carries_one_way_only_is_suspected_by_the_end_that_is_not_heard() {
        let mut path = Path::new(terms());
        path.streams = 1;
        path.run(Duration::from_secs(1));
        path.answers = false;
        for _ in 0..30 {
            path.run(Duration::from_millis(100));
            path.packets_in += 1;
            path.handle(Input::Heard);
        }
        assert_eq!(path.count(Output::Suspected), 1);
        assert_eq!(path.count(Output::Recovered), 0);
        path.handle(Input::Answered);
        assert_eq!(path.count(Output::Recovered), 1);
    }

    #[test]
    fn a_suspected_link_is_probed_three_times_a_second() {
        let mut path = Path::new(Terms { neighbour: true, ..terms() });
        path.run(Duration::from_secs(30));
        path.answers = false;
        path.run(Duration::from_secs(5));
        let before = path.seen.len();
        path.run(Duration::from_secs(3));
        assert_eq!(path.seen.len() - before, 10);
    }

    #[test]
    fn a_call_link_is_closed_when_idle_and_a_neighbours_is_not() {
        for neighbour in [false, true] {
            let mut path = Path::new(Terms { neighbour, ..terms() });
            path.streams = 1;
            path.run(Duration::from_secs(10));
            path.streams = 0;
            path.run(Duration::from_secs(59));
            assert_eq!(path.count(Output::Close(Close::Idle)), 0);
            path.run(Duration::from_secs(5));
            assert_eq!(path.count(Output::Close(Close::Idle)), usize::from(!neighbour));
        }
    }

    #[test]
    fn an_idle_call_link_is_not_probed() {
        let mut path = Path::new(terms());
        path.run(Duration::from_secs(5));
        path.seen.clear();
        path.run(Duration::from_secs(50));
        assert_eq!(path.seen, []);
    }

    #[test]
    fn a_drained_link_waits_for_its_calls_but_not_for_ever() {
        let mut path = Path::new(terms());
        path.streams = 1;
        path.run(Duration::from_secs(1));
        path.handle(Input::Drain(Close::Unwanted));
        path.run(Duration::from_secs(4));
        assert_eq!(path.count(Output::Close(Close::Unwanted)), 0);
        path.run(Duration::from_secs(2));
        assert_eq!(path.count(Output::Close(Close::Overdue)), 1);
    }

    #[test]
    fn a_link_ends_with_the_grant_unless_it_is_renewed() {
        for renewed in [false, true] {
            let mut path = Path::new(Terms {
                neighbour: true,
                until: Time::ZERO + Duration::from_secs(10),
                ..terms()
            });
            path.run(Duration::from_secs(5));
            if renewed {
                path.handle(Input::Renewed { until: Time::ZERO + Duration::from_secs(100) });
            }
            path.run(Duration::from_secs(10));
            assert_eq!(path.count(Output::Close(Close::Expired)), usize::from(!renewed));
        }
    }
}
