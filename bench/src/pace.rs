//! A beat finer than a runtime's timer: open load at 1 000/s cannot live with wake-ups that are
//! late by up to a millisecond, so the kernel's timer descriptor wakes us.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::Error;

/// Beats at a fixed interval; a beat that nobody was there for is not lost but counted.
pub struct Pace {
    timer: AsyncFd<OwnedFd>,
    start: Instant,
    interval: Duration,
    beats: u64,
}

impl Pace {
    /// Starts now; the first beat comes after one interval.
    pub fn every(interval: Duration) -> Result<Self, Error> {
        if interval.is_zero() {
            return Err(Error::Wrong("a beat needs an interval".to_owned()));
        }
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags);
        let timer = timer.map_err(|e| Error::io("timer descriptor")(e.into()))?;
        let seconds = i64::try_from(interval.as_secs()).map_err(Error::at("interval"))?;
        let beat = Timespec { tv_sec: seconds, tv_nsec: interval.subsec_nanos().into() };
        let spec = Itimerspec { it_interval: beat, it_value: beat };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &spec)
            .map_err(|e| Error::io("set the timer descriptor")(e.into()))?;
        let start = Instant::now();
        #[expect(deprecated, reason = "safe for an owned descriptor; what replaced it is not")]
        let timer = AsyncFd::new(timer).map_err(Error::io("watch the timer descriptor"))?;
        Ok(Self { timer, start, interval, beats: 0 })
    }

    /// Waits for the next beat and returns the moments of all beats since the last call, each as
    /// it was due and not as it was noticed.
    pub async fn due(&mut self) -> Result<impl Iterator<Item = Instant> + use<>, Error> {
        let mut count = [0_u8; 8];
        loop {
            let mut ready = self.timer.readable().await.map_err(Error::io("wait for the timer"))?;
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut count)?));
            match read {
                Ok(Ok(_)) => break,
                Ok(Err(error)) => return Err(Error::io("read the timer")(error)),
                Err(_not_yet) => {}
            }
        }
        let first = self.beats + 1;
        self.beats += u64::from_ne_bytes(count);
        let (start, interval) = (self.start, self.interval);
        Ok((first..=self.beats).map(move |beat| {
            start + Duration::from_nanos(saturating_nanoseconds(interval).saturating_mul(beat))
        }))
    }
}

fn saturating_nanoseconds(interval: Duration) -> u64 {
    u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_beat_is_lost_when_nobody_listens() {
        let mut pace = Pace::every(Duration::from_millis(1)).unwrap();
        let start = pace.start;
        std::thread::sleep(Duration::from_millis(20));
        let missed: Vec<Instant> = pace.due().await.unwrap().collect();
        assert!(missed.len() >= 20, "{}", missed.len());
        for (beat, due) in (1_u32..).zip(&missed) {
            assert_eq!(*due, start + Duration::from_millis(1) * beat);
        }
        let next: Vec<Instant> = pace.due().await.unwrap().collect();
        assert_eq!(next[0], *missed.last().unwrap() + Duration::from_millis(1));
    }

    #[tokio::test]
    async fn no_interval_is_an_error() {
        assert!(Pace::every(Duration::ZERO).is_err());
    }
}
