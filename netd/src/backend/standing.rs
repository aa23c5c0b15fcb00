//! How a back end is: watched, or silent and since when.

use std::time::Duration;

use proto::Time;

use super::entry::cut;

/// How long a back end may be silent before what it said is marked: a restart of a moment is not worth
/// a record for everything it has.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a back end cannot be watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// One line.
    pub(super) why: String,
    /// All of it, where that is more.
    pub(super) detail: Option<String>,
    /// It answers, and is not to be watched: asking again will not help soon.
    pub(super) refused: bool,
}

impl Trouble {
    /// It does not answer, or not as it should.
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), detail: None, refused: false }
    }

    /// It is not to be watched.
    pub(super) fn refused(why: impl Into<String>) -> Self {
        Self { refused: true, ..Self::new(why) }
    }
}

/// The word for how a back end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It was not heard yet.
    Starting,
    /// It is watched.
    Watching,
    /// It cannot be watched now: what it said is kept.
    Stale,
    /// It answers, and is not to be watched.
    Refused,
}

impl Word {
    /// As people read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Watching => "watching",
            Self::Stale => "stale",
            Self::Refused => "refused",
        }
    }
}

/// How a back end is, since when, and why.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) word: Word,
    pub(super) since: Time,
    pub(super) why: Option<String>,
    pub(super) detail: Option<String>,
}

impl Standing {
    pub(super) fn starting(now: Time) -> Self {
        Self { word: Word::Starting, since: now, why: None, detail: None }
    }

    /// All of it was heard.
    pub(super) fn found(&mut self, now: Time) {
        if self.word != Word::Watching {
            *self = Self { word: Word::Watching, since: now, why: None, detail: None };
        }
    }

    /// It is silent. One that is, however often that is said, is since it was first.
    pub(super) fn lost(&mut self, trouble: Trouble, now: Time) {
        let word = if trouble.refused { Word::Refused } else { Word::Stale };
        if self.word != word {
            let was_silent = matches!(self.word, Word::Stale | Word::Refused);
            self.since = if was_silent { self.since } else { now };
            self.word = word;
        }
        self.why = Some(cut(&trouble.why));
        self.detail = trouble.detail;
    }

    /// When what it said is to be marked; `None` while it is watched.
    pub(super) fn marks_at(&self) -> Option<Time> {
        matches!(self.word, Word::Stale | Word::Refused).then(|| self.since + PATIENCE)
    }
}
