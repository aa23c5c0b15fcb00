//! Questions for more messages, which wait at a consumer until there are some.

use proto::topic::Topic;

use super::api::Next;

/// The longest that one waits: ten minutes, in microseconds. A program that still waits asks again.
const LONGEST: u64 = 600 * 1_000_000;

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pull {
    /// Where messages are waited for.
    pub(super) reply: Topic,
    /// How many more.
    pub(super) left: usize,
    /// How many bytes more.
    bytes: Option<usize>,
    /// Until when: microseconds since 1970.
    pub(super) until: u64,
    no_wait: bool,
    given: usize,
    /// How long it may be silent, and when it is too long.
    beat: Option<(u64, u64)>,
}

/// How a question goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It takes a message of this size.
    Takes,
    /// It is answered, and told so.
    Ends(Status),
}

/// What a question is told in place of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// Its consumer is there, and has nothing yet.
    Idle,
    /// There is nothing.
    NoMessages,
    /// Nothing more has come in time.
    TimedOut,
    /// The next message is larger than it takes.
    TooLarge,
    /// Others that ask have taken all places.
    TooMany,
    /// Its consumer is no more.
    Deleted,
}

impl Status {
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Idle => "100",
            Self::NoMessages => "404",
            Self::TimedOut => "408",
            Self::TooLarge | Self::TooMany | Self::Deleted => "409",
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Idle => "Idle Heartbeat",
            Self::NoMessages => "No Messages",
            Self::TimedOut => "Request Timeout",
            Self::TooLarge => "Message Size Exceeds MaxBytes",
            Self::TooMany => "Exceeded MaxWaiting",
            Self::Deleted => "Consumer Deleted",
        }
    }
}

impl Pull {
    pub(super) fn new(reply: Topic, next: &Next, now: u64) -> Self {
        let micros = |ns: u64| ns / 1000;
        let wait = if next.expires == 0 { LONGEST } else { micros(next.expires).min(LONGEST) };
        let beat = micros(next.idle_heartbeat);
        Self {
            reply,
            left: next.batch,
            bytes: Some(next.max_bytes).filter(|&bytes| bytes > 0),
            until: now + wait,
            no_wait: next.no_wait,
            given: 0,
            beat: (beat > 0).then_some((beat, now + beat)),
        }
    }

    /// Whether it takes a message of so many bytes.
    pub(super) fn takes(&self, size: usize) -> Turn {
        match self.bytes {
            Some(left) if left < size => Turn::Ends(Status::TooLarge),
            Some(_) | None => Turn::Takes,
        }
    }

    /// It has got one; true when it has got all.
    pub(super) fn got(&mut self, size: usize, now: u64) -> bool {
        self.left -= 1;
        self.given += 1;
        self.bytes = self.bytes.map(|left| left - size.min(left));
        if let Some((every, at)) = &mut self.beat {
            *at = now + *every;
        }
        self.left == 0
    }

    /// What it is told when there is nothing for it now.
    pub(super) fn idle(&mut self, now: u64) -> Option<Status> {
        if self.no_wait {
            return Some(if self.given == 0 { Status::NoMessages } else { Status::TimedOut });
        }
        if now >= self.until {
            return Some(Status::TimedOut);
        }
        let (every, at) = self.beat.as_mut()?;
        (now >= *at).then(|| {
            *at = now + *every;
            Status::Idle
        })
    }

    /// When it is to be looked at again.
    pub(super) fn wakes(&self) -> u64 {
        self.beat.map_or(self.until, |(_, at)| at.min(self.until))
    }

    /// How many bytes more it would take.
    pub(super) fn bytes_left(&self) -> usize {
        self.bytes.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn pull(text: &str) -> Pull {
        let next = Next::read(text.as_bytes()).unwrap();
        Pull::new(Topic::new("_INBOX.a").unwrap(), &next, 0)
    }

    #[test]
    fn it_ends_when_it_has_all_or_its_time_is_over() {
        let mut one = pull(r#"{"batch":2,"expires":1000000000}"#);
        assert_eq!((one.got(5, 0), one.idle(SECOND - 1), one.wakes()), (false, None, SECOND));
        assert_eq!(one.idle(SECOND), Some(Status::TimedOut));
        assert!(one.got(5, 0));
        assert_eq!(pull("").wakes(), LONGEST);
    }

    #[test]
    fn one_that_does_not_wait_is_told_at_once() {
        let mut one = pull(r#"{"batch":2,"no_wait":true}"#);
        assert_eq!(one.idle(0), Some(Status::NoMessages));
        one.got(1, 0);
        assert_eq!(one.idle(0), Some(Status::TimedOut));
    }

    #[test]
    fn it_takes_so_many_bytes_and_hears_that_it_is_not_forgotten() {
        let mut one = pull(r#"{"batch":9,"max_bytes":10,"idle_heartbeat":2000000000}"#);
        assert_eq!(one.takes(10), Turn::Takes);
        one.got(6, SECOND);
        assert_eq!((one.takes(5), one.bytes_left()), (Turn::Ends(Status::TooLarge), 4));
        assert_eq!((one.idle(2 * SECOND), one.idle(3 * SECOND)), (None, Some(Status::Idle)));
        assert_eq!((one.idle(4 * SECOND), one.wakes()), (None, 5 * SECOND));
    }
}
