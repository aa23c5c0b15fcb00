//! Records in one database file, or in memory, by one thread.
//!
//! ```text
//! records   database 00 table 00 key                        → go.micro.store.Record, `expiry` its end
//! ends      end (8 bytes, ms since 1970) record's key       → ()
//! sizes     "bytes"                                         → of all keys and values
//! ```
//!
//! After an error of the file system the database is closed, and opened again for the next request:
//! what was being written is not there then, and what was there before is.

use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message as _;
use proto::micro::store as pb;
use proxy::own::store::{Find, Place, Record, StoreError};
use redb::backends::{FileBackend, InMemoryBackend};
use redb::{Database, ReadableDatabase as _, ReadableTable, StorageError, TableDefinition};

use super::Backing;

const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
const ENDS: TableDefinition<'_, &[u8], ()> = TableDefinition::new("ends");
const SIZES: TableDefinition<'_, &str, u64> = TableDefinition::new("sizes");
const BYTES: &str = "bytes";

/// Bytes of all keys and values in a file, and in memory. More is refused.
const MAX_FILE: u64 = 1 << 30;
const MAX_MEMORY: u64 = 64 << 20;
/// Bytes of the file that are kept in memory.
const CACHE: usize = 16 << 20;
/// Bytes of records in one answer: they have to fit a message.
const MAX_ANSWER: usize = (4 << 20) - (64 << 10);
/// Bytes of keys in one answer, which may be several messages.
const MAX_KEYS: usize = 32 << 20;
/// Records taken away in one sweep.
const SWEPT: usize = 4096;

/// A change of one record.
#[derive(Debug)]
pub(super) enum Change {
    Put(Place, Record),
    Delete(Place, String),
}

/// The records.
pub(super) struct Table {
    backing: Backing,
    open: Option<Database>,
}

impl Table {
    pub(super) fn new(backing: Backing) -> Self {
        Self { backing, open: None }
    }

    pub(super) fn get(&mut self, place: &Place, key: &str) -> Result<Option<Record>, StoreError> {
        let at = record_key(place, key);
        self.read(|records, now| {
            let Some(found) = records.get(&at[..])? else { return Ok(None) };
            Ok(Some(record(key.to_owned(), found.value(), now).ok_or(())))
        })
        .map(|found| found.flatten().and_then(Result::ok))
    }

    pub(super) fn find(&mut self, place: &Place, find: &Find) -> Result<Vec<Record>, StoreError> {
        let mut bytes = 0;
        let mut found = Vec::new();
        let whole = self.scan(place, find, |record| {
            bytes += record.key.len() + record.value.len() + 32;
            let said = record.metadata.iter();
            bytes += said.map(|(k, (t, v))| k.len() + t.len() + v.len() + 16).sum::<usize>();
            found.push(record);
            bytes <= MAX_ANSWER
        })?;
        if whole { Ok(found) } else { Err(StoreError::TooMuch(MAX_ANSWER)) }
    }

    pub(super) fn keys(&mut self, place: &Place, find: &Find) -> Result<Vec<String>, StoreError> {
        let mut bytes = 0;
        let mut found = Vec::new();
        let whole = self.scan(place, find, |record| {
            bytes += record.key.len() + 32;
            found.push(record.key);
            bytes <= MAX_KEYS
        })?;
        if whole { Ok(found) } else { Err(StoreError::TooMuch(MAX_KEYS)) }
    }

    /// Gives what is asked for, as long as it is taken; false when it no longer was.
    fn scan(
        &mut self,
        place: &Place,
        find: &Find,
        mut take: impl FnMut(Record) -> bool,
    ) -> Result<bool, StoreError> {
        let before = record_key(place, "").len();
        let from = record_key(place, &find.prefix);
        let to = above(&from);
        let whole = self.read(|records, now| {
            let range = records.range::<&[u8]>(&from[..]..&to[..])?;
            let (mut skip, mut left) = (find.offset, find.limit);
            let mut each = |entry: Result<_, StorageError>| -> Result<Option<bool>, redb::Error> {
                let (at, value): (redb::AccessGuard<'_, &[u8]>, redb::AccessGuard<'_, &[u8]>) =
                    entry?;
                let key = std::str::from_utf8(&at.value()[before..]).unwrap_or_default();
                if !key.ends_with(&find.suffix) {
                    return Ok(None);
                }
                let Some(record) = record(key.to_owned(), value.value(), now) else {
                    return Ok(None);
                };
                if skip > 0 {
                    skip -= 1;
                    return Ok(None);
                }
                if !take(record) {
                    return Ok(Some(false));
                }
                left = left.saturating_sub(1);
                Ok((find.limit > 0 && left == 0).then_some(true))
            };
            if find.descending {
                for entry in range.rev() {
                    if let Some(whole) = each(entry)? {
                        return Ok(whole);
                    }
                }
            } else {
                for entry in range {
                    if let Some(whole) = each(entry)? {
                        return Ok(whole);
                    }
                }
            }
            Ok(true)
        })?;
        Ok(whole.unwrap_or(true))
    }

    pub(super) fn databases(&mut self) -> Result<Vec<String>, StoreError> {
        self.names(Vec::new())
    }

    pub(super) fn tables(&mut self, database: &str) -> Result<Vec<String>, StoreError> {
        let mut before = database.as_bytes().to_vec();
        before.push(0);
        self.names(before)
    }

    /// The names that follow, each once: looked for one after the other, not by reading everything.
    fn names(&mut self, before: Vec<u8>) -> Result<Vec<String>, StoreError> {
        let to = above(&before);
        let found = self.read(|records, _| {
            let (mut found, mut from) = (Vec::new(), before.clone());
            while let Some(entry) = records.range::<&[u8]>(&from[..]..&to[..])?.next() {
                let (at, _) = entry?;
                let rest = at.value().get(before.len()..).unwrap_or_default();
                let name = rest.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
                from.truncate(before.len());
                from.extend_from_slice(&name);
                from.push(1);
                found.push(String::from_utf8_lossy(&name).into_owned());
            }
            Ok(found)
        })?;
        Ok(found.unwrap_or_default())
    }

    /// Makes changes, durable before this returns; each is done or says why it was not.
    pub(super) fn change(&mut self, changes: Vec<Change>) -> Vec<Result<(), StoreError>> {
        let count = changes.len();
        let most = if self.backing == Backing::Memory { MAX_MEMORY } else { MAX_FILE };
        let done = self.write(|tables, now| {
            let each = changes.iter().map(|change| tables.change(change, now, most));
            each.collect::<Result<Vec<_>, redb::Error>>()
        });
        match done {
            Ok(done) => done,
            Err(error) => vec![Err(error); count],
        }
    }

    /// Takes records away whose time is over.
    pub(super) fn sweep(&mut self) {
        if self.open.is_none() {
            return;
        }
        if let Err(error) = self.write(|tables, now| tables.sweep(now)) {
            tracing::warn!(%error, "records whose time is over were not taken away");
        }
    }

    /// Reads; `None` where nothing was ever written.
    fn read<T>(
        &mut self,
        read: impl FnOnce(
            &redb::ReadOnlyTable<&'static [u8], &'static [u8]>,
            u64,
        ) -> Result<T, redb::Error>,
    ) -> Result<Option<T>, StoreError> {
        if self.open.is_none() && !self.exists() {
            return Ok(None);
        }
        self.with(|database| {
            let transaction = database.begin_read()?;
            match transaction.open_table(RECORDS) {
                Ok(records) => read(&records, now_ms()).map(Some),
                Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
    }

    fn write<T>(
        &mut self,
        write: impl FnOnce(&mut Tables<'_>, u64) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            let done = {
                let mut tables = Tables {
                    records: transaction.open_table(RECORDS)?,
                    ends: transaction.open_table(ENDS)?,
                    sizes: transaction.open_table(SIZES)?,
                };
                write(&mut tables, now_ms())?
            };
            // Durable when it returns: that is redb's own default.
            transaction.commit()?;
            Ok(done)
        })
    }

    /// Does something with the database; closes it after an error, so that the next request finds out
    /// what is there.
    fn with<T>(
        &mut self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let database = match self.open.take() {
            Some(database) => database,
            None => open(&self.backing)?,
        };
        match work(&database) {
            Ok(done) => {
                self.open = Some(database);
                Ok(done)
            }
            Err(error) => {
                if self.backing == Backing::Memory {
                    // Closed, it would be empty.
                    self.open = Some(database);
                }
                tracing::warn!(%error, "the store has failed");
                Err(failed(&error))
            }
        }
    }

    fn exists(&self) -> bool {
        match &self.backing {
            Backing::Memory => false,
            Backing::File(path) => path.exists(),
        }
    }
}

/// What one write works on.
struct Tables<'a> {
    records: redb::Table<'a, &'static [u8], &'static [u8]>,
    ends: redb::Table<'a, &'static [u8], ()>,
    sizes: redb::Table<'a, &'static str, u64>,
}

impl Tables<'_> {
    fn change(
        &mut self,
        change: &Change,
        now: u64,
        most: u64,
    ) -> Result<Result<(), StoreError>, redb::Error> {
        let bytes = self.sizes.get(BYTES)?.map_or(0, |bytes| bytes.value());
        let (at, value) = match change {
            Change::Put(place, record) => {
                (record_key(place, &record.key), Some(stored(record, now)))
            }
            Change::Delete(place, key) => (record_key(place, key), None),
        };
        let before = self.records.get(&at[..])?.map(|value| value.value().to_vec());
        let held = before.as_ref().map_or(0, |value| at.len() + value.len());
        let held = u64::try_from(held).unwrap_or(u64::MAX);
        let added = value.as_ref().map_or(0, |(value, _)| at.len() + value.len());
        let bytes = bytes.saturating_sub(held) + u64::try_from(added).unwrap_or(u64::MAX);
        if value.is_some() && bytes > most {
            let why = format!("it keeps at most {} MiB", most >> 20);
            return Ok(Err(StoreError::Full(why)));
        }
        if let Some(end) = before.as_deref().and_then(end_of) {
            self.ends.remove(&end_key(end, &at)[..])?;
        }
        match value {
            Some((value, end)) => {
                self.records.insert(&at[..], &value[..])?;
                if end > 0 {
                    self.ends.insert(&end_key(end, &at)[..], ())?;
                }
            }
            None => drop(self.records.remove(&at[..])?),
        }
        self.sizes.insert(BYTES, bytes)?;
        Ok(Ok(()))
    }

    fn sweep(&mut self, now: u64) -> Result<(), redb::Error> {
        let until = now.to_be_bytes();
        let over: Vec<Vec<u8>> = self
            .ends
            .range::<&[u8]>(..&until[..])?
            .take(SWEPT)
            .map(|entry| entry.map(|(at, _)| at.value().to_vec()))
            .collect::<Result<_, _>>()?;
        let mut freed = 0;
        for end in over {
            let at = &end[until.len()..];
            if let Some(value) = self.records.remove(at)? {
                freed += at.len() + value.value().len();
            }
            self.ends.remove(&end[..])?;
        }
        let bytes = self.sizes.get(BYTES)?.map_or(0, |bytes| bytes.value());
        let bytes = bytes.saturating_sub(u64::try_from(freed).unwrap_or(u64::MAX));
        self.sizes.insert(BYTES, bytes)?;
        Ok(())
    }
}

fn open(backing: &Backing) -> Result<Database, StoreError> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    let opened = match backing {
        Backing::Memory => builder.create_with_backend(InMemoryBackend::new()),
        Backing::File(path) => {
            let mut options = std::fs::OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let file = options.open(path).map_err(|error| of_system(&error))?;
            FileBackend::new(file).and_then(|file| builder.create_with_backend(file))
        }
    };
    opened.map_err(|error| failed(&error.into()))
}

fn failed(error: &redb::Error) -> StoreError {
    if let redb::Error::Io(error) = error {
        return of_system(error);
    }
    // What a file system says may lie behind it.
    let source = std::error::Error::source(error);
    match source.and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(error) => of_system(error),
        None => StoreError::Failed(error.to_string()),
    }
}

fn of_system(error: &io::Error) -> StoreError {
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    if full.contains(&error.kind()) {
        return StoreError::Full(format!("no room on the disk ({error})"));
    }
    StoreError::Failed(error.to_string())
}

/// Names have no zero bytes, so keys of one table lie together and none is another's.
fn record_key(place: &Place, key: &str) -> Vec<u8> {
    [place.database.as_bytes(), &[0], place.table.as_bytes(), &[0], key.as_bytes()].concat()
}

fn end_key(end: u64, at: &[u8]) -> Vec<u8> {
    [&end.to_be_bytes(), at].concat()
}

/// The first key above all that begin with `prefix`.
fn above(prefix: &[u8]) -> Vec<u8> {
    let mut above = prefix.to_vec();
    while let Some(last) = above.pop() {
        if let Some(next) = last.checked_add(1) {
            above.push(next);
            return above;
        }
    }
    // No text has this byte.
    vec![u8::MAX]
}

/// The record as it is kept, and its end; 0: it has none.
fn stored(record: &Record, now: u64) -> (Vec<u8>, u64) {
    let millis = |lasts: Duration| u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
    let end = record.lasts.map_or(0, |lasts| now.saturating_add(millis(lasts)).max(1));
    let metadata = record.metadata.iter().map(|(name, (kind, value))| {
        (name.clone(), pb::Field { r#type: kind.clone(), value: value.clone() })
    });
    let kept = pb::Record {
        key: String::new(),
        value: record.value.clone(),
        expiry: i64::try_from(end).unwrap_or(i64::MAX),
        metadata: metadata.collect(),
    };
    (kept.encode_to_vec(), end)
}

fn end_of(kept: &[u8]) -> Option<u64> {
    let kept = pb::Record::decode(kept).ok()?;
    u64::try_from(kept.expiry).ok().filter(|end| *end > 0)
}

/// The record, unless its time is over.
fn record(key: String, kept: &[u8], now: u64) -> Option<Record> {
    let kept = pb::Record::decode(kept).ok()?;
    let lasts = match u64::try_from(kept.expiry).unwrap_or(0) {
        0 => None,
        end => Some(Duration::from_millis(end.checked_sub(now).filter(|left| *left > 0)?)),
    };
    let metadata = kept.metadata.into_iter();
    let metadata = metadata.map(|(name, field)| (name, (field.r#type, field.value))).collect();
    Some(Record { key, value: kept.value, lasts, metadata })
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
