//! The messages of one stream on disk: appended, read from any number on, dropped from the front.
//!
//! What [`Log::append`] has taken is on the disk when it returns. Of several messages given at once all are or
//! none is. A file that was cut by a crash ends with its last whole record; one that is damaged loses the records
//! that are, and no others.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use proto::publish::Headers;
use proto::stored::{HEADER, Record};
use proto::topic::Topic;

pub use super::segment::Damage;
use super::segment::{self, Segment};

/// Files that a stream which is full has about.
const FILES: u64 = 16;
/// Bytes of one file: at least, and at most.
const FILE: (u64, u64) = (256 * 1024, 32 * 1024 * 1024);
/// Files whose records are known at a time, beside the first and the last.
const LOADED: usize = 3;

/// What a log may hold. What is older or more gives way, the oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How long a message is kept.
    pub age: Option<Duration>,
    /// Bytes of all records.
    pub bytes: u64,
}

/// A message to be stored.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it was published to.
    pub topic: Topic,
    /// Its headers.
    pub headers: Headers,
    /// Its payload.
    pub payload: Bytes,
}

/// The log of one stream.
pub struct Log {
    dir: PathBuf,
    bounds: Bounds,
    /// By their first numbers; at least one.
    segments: VecDeque<Segment>,
    /// The first number that is kept.
    first: u64,
    /// The number of the next message.
    next: u64,
    /// Bytes of all files without their headers.
    bytes: u64,
    /// When the last message was stored: time does not go back.
    time: u64,
    /// The next message goes into a new file.
    roll: bool,
    damage: Vec<Damage>,
    /// Files whose records are known, but for the first and the last.
    loaded: VecDeque<u64>,
}

impl Log {
    /// Opens the log of a directory, which is made where there is none.
    ///
    /// # Errors
    /// Where files cannot be read or made.
    pub fn open(dir: &Path, bounds: Bounds) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut segments = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if let Some(first) = segment::first_of(&path).filter(|&first| first > 0) {
                segments.push(Segment::found(path, first)?);
            }
        }
        segments.sort_by_key(|segment| segment.first);
        let mut segments = VecDeque::from(segments);
        if segments.is_empty() {
            segments.push_back(Segment::create(dir, 1)?);
        }
        let mut log = Self {
            dir: dir.to_owned(),
            bounds,
            first: segments[0].first,
            next: 0,
            bytes: 0,
            time: 0,
            roll: false,
            damage: Vec::new(),
            loaded: VecDeque::new(),
            segments,
        };
        if let Some(last) = log.segments.back_mut() {
            log.damage = last.load(u64::MAX, true)?;
            log.next = last.next().unwrap_or(last.first);
        }
        log.bytes = log.segments.iter().map(body).sum();
        // Should the clock have gone back meanwhile.
        let last = log.read(log.next.saturating_sub(1).max(log.first), 1, 0)?;
        log.time = last.last().map_or(0, |record| record.time);
        Ok(log)
    }

    /// The number of the first message, and of the last; the last is less where there is none.
    #[must_use]
    pub fn numbers(&self) -> (u64, u64) {
        (self.first, self.next - 1)
    }

    /// Bytes of the messages that are kept.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let dropped = self.segments.front().map_or(0, |front| {
            front.next().map_or(0, |_| front.offset(self.first).saturating_sub(HEADER as u64))
        });
        self.bytes - dropped
    }

    /// What was found damaged since this was asked last.
    pub fn take_damage(&mut self) -> Vec<Damage> {
        std::mem::take(&mut self.damage)
    }

    /// Stores messages at `now`, microseconds since 1970, and gives the number of the first. They are on the disk
    /// when this returns.
    ///
    /// # Errors
    /// Where they cannot be written; then none of them is stored, and the next may be.
    pub fn append(&mut self, entries: Vec<Entry>, now: u64) -> io::Result<u64> {
        let (first, time) = (self.next, self.time.max(now));
        let number = first..;
        let records: Vec<Record> = entries
            .into_iter()
            .zip(number)
            .map(|(Entry { topic, headers, payload }, number)| Record {
                number,
                time,
                topic,
                headers,
                payload,
            })
            .collect();
        let size: u64 = records.iter().map(|record| record.size() as u64).sum();
        let full = self.last().size + size > (self.bounds.bytes / FILES).clamp(FILE.0, FILE.1);
        if self.roll || (full && self.last().size > HEADER as u64) {
            self.roll()?;
        }
        if let Err(error) = self.last().append(&records) {
            // What the kernel keeps of a file after an error is not known: it is written no more.
            self.roll = self.last().size > HEADER as u64;
            return Err(error);
        }
        self.next += records.len() as u64;
        self.bytes += size;
        self.time = time;
        Ok(first)
    }

    fn last(&mut self) -> &mut Segment {
        let last = self.segments.len() - 1;
        &mut self.segments[last]
    }

    fn roll(&mut self) -> io::Result<()> {
        let segment = Segment::create(&self.dir, self.next)?;
        let old = self.last().first;
        self.segments.push_back(segment);
        self.keep_loaded(old);
        self.roll = false;
        Ok(())
    }

    /// Messages from this number on, or from the next that is there: at most so many, of about so many bytes and at
    /// least one. None only where there are no more.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn read(&mut self, from: u64, most: usize, bytes: usize) -> io::Result<Vec<Record>> {
        let mut from = from.max(self.first);
        while from < self.next {
            let place = self.segments.partition_point(|segment| segment.first <= from);
            let place = place.saturating_sub(1);
            self.load(place)?;
            let (records, damage) = self.segments[place].read(from, most, bytes)?;
            self.damage.extend(damage);
            if !records.is_empty() {
                return Ok(records);
            }
            // All that was asked for is damaged, or this file has no more.
            let end = self.end_of(place);
            from = if self.segments[place].offset(from) < self.segments[place].size {
                from + 1
            } else {
                end.max(from + 1)
            };
        }
        Ok(Vec::new())
    }

    /// The first number of the file behind, or of the next message.
    fn end_of(&self, place: usize) -> u64 {
        self.segments.get(place + 1).map_or(self.next, |segment| segment.first)
    }

    fn load(&mut self, place: usize) -> io::Result<()> {
        let below = self.segments.get(place + 1).map_or(u64::MAX, |next| next.first);
        let segment = &mut self.segments[place];
        if segment.next().is_some() {
            return Ok(());
        }
        let before = body(segment);
        let damage = segment.load(below, false)?;
        let (after, first) = (body(segment), segment.first);
        self.bytes = self.bytes - before + after;
        self.damage.extend(damage);
        if place > 0 {
            self.keep_loaded(first);
        }
        Ok(())
    }

    fn keep_loaded(&mut self, first: u64) {
        self.loaded.push_back(first);
        while self.loaded.len() > LOADED {
            let Some(oldest) = self.loaded.pop_front() else { return };
            let last = self.segments.len() - 1;
            let mut inner = self.segments.iter_mut().take(last).skip(1);
            if let Some(segment) = inner.find(|segment| segment.first == oldest) {
                segment.unload();
            }
        }
    }

    /// The number of the first message that was stored at this time or later.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn since(&mut self, time: u64) -> io::Result<u64> {
        let (mut low, mut high) = (self.first, self.next);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.read(middle, 1, 0)?.first() {
                Some(record) if record.time >= time => high = middle,
                Some(record) => low = record.number + 1,
                None => high = middle,
            }
        }
        Ok(low)
    }

    /// Drops what is older or more than it may be at `now`; gives how many messages.
    ///
    /// # Errors
    /// Where a file cannot be read or removed.
    pub fn trim(&mut self, now: u64) -> io::Result<u64> {
        let before = self.first;
        // Whole files, without a look into them.
        while self.segments.len() > 1 && self.bytes - body(&self.segments[0]) >= self.bounds.bytes {
            self.drop_front()?;
        }
        let oldest = self.bounds.age.map_or(0, |age| {
            now.saturating_sub(u64::try_from(age.as_micros()).unwrap_or(u64::MAX))
        });
        while self.first < self.next {
            let Some(record) = self.read(self.first, 1, 0)?.into_iter().next() else {
                self.first = self.next;
                break;
            };
            if record.time >= oldest && self.bytes() <= self.bounds.bytes {
                break;
            }
            self.first = record.number + 1;
            while self.segments.len() > 1 && self.first >= self.segments[1].first {
                self.drop_front()?;
            }
        }
        if self.first == self.next && self.last().size > HEADER as u64 {
            // Nothing in the last file is kept.
            self.roll()?;
            self.drop_front()?;
        }
        Ok(self.first - before)
    }

    /// Drops all messages.
    ///
    /// # Errors
    /// Where a file cannot be made or removed.
    pub fn purge(&mut self) -> io::Result<u64> {
        let before = self.first;
        if self.last().size > HEADER as u64 {
            self.roll()?;
        }
        while self.segments.len() > 1 {
            self.drop_front()?;
        }
        self.first = self.next;
        Ok(self.first - before)
    }

    fn drop_front(&mut self) -> io::Result<()> {
        let Some(front) = self.segments.pop_front() else { return Ok(()) };
        self.bytes -= body(&front);
        self.loaded.retain(|&first| first != front.first);
        self.first = self.first.max(self.segments.front().map_or(self.next, |next| next.first));
        front.remove()
    }
}

/// Bytes of the records of a file.
fn body(segment: &Segment) -> u64 {
    segment.size.saturating_sub(HEADER as u64)
}

#[cfg(test)]
mod tests;
