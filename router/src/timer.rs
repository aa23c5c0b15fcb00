//! The timer table: what the router waits for, so that a needless wake-up has a name.

use proto::Time;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// News gathers for a few milliseconds before it is told.
    Flood,
    /// Compare what is held with the neighbours.
    Digest,
    /// Compare with some of them, before that is due: there is reason to.
    Compare,
    /// Work out paths and answers.
    Paths,
    /// The next lease ends.
    Lease,
    /// The next grant ends.
    Grant,
    /// Drop what nobody could reach for a day, and old tombstones.
    Forget,
    /// Dial, give up a dial, or close what is no longer wanted.
    Dial,
    /// A change of cost that had to wait may be told.
    Cost,
    /// Write own records anew, above what the network remembers.
    Reissue,
    /// Look whether this node is to carry rules of others.
    Carry,
}

impl Timer {
    const ALL: [Self; 11] = [
        Self::Flood,
        Self::Digest,
        Self::Compare,
        Self::Paths,
        Self::Lease,
        Self::Grant,
        Self::Forget,
        Self::Dial,
        Self::Cost,
        Self::Reissue,
        Self::Carry,
    ];
}

/// One row per [`Timer`].
#[derive(Clone, Debug, Default)]
pub(crate) struct TimerTable([Option<Time>; Timer::ALL.len()]);

impl TimerTable {
    /// Sets a timer, in place of what it was set to.
    pub(crate) fn set(&mut self, timer: Timer, at: Time) {
        self.0[timer as usize] = Some(at);
    }

    /// Sets a timer unless it is set to something earlier.
    pub(crate) fn arm(&mut self, timer: Timer, at: Time) {
        let row = &mut self.0[timer as usize];
        *row = Some(row.map_or(at, |set| set.min(at)));
    }

    /// Sets or stops a timer.
    pub(crate) fn put(&mut self, timer: Timer, at: Option<Time>) {
        self.0[timer as usize] = at;
    }

    /// The earliest, with what it is for; of equals the first in the order of [`Timer`].
    pub(crate) fn next(&self) -> Option<(Time, Timer)> {
        let rows = Timer::ALL.into_iter().zip(self.0);
        rows.filter_map(|(timer, at)| Some((at?, timer))).min()
    }

    /// Takes the earliest that is due at `now`, and stops it.
    pub(crate) fn take_due(&mut self, now: Time) -> Option<Timer> {
        let (at, timer) = self.next()?;
        (at <= now).then(|| {
            self.0[timer as usize] = None;
            timer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_ties_go_by_order() {
        let mut table = TimerTable::default();
        let at = Time::from_micros;
        table.set(Timer::Dial, at(5));
        table.set(Timer::Flood, at(7));
        table.arm(Timer::Flood, at(9));
        table.arm(Timer::Lease, at(5));
        assert_eq!(table.next(), Some((at(5), Timer::Lease)));
        assert_eq!(table.take_due(at(4)), None);
        let due: Vec<_> = std::iter::from_fn(|| table.take_due(at(8))).collect();
        assert_eq!(due, [Timer::Lease, Timer::Dial, Timer::Flood]);
        assert_eq!(table.next(), None);
    }
}
