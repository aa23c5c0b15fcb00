//! One file of a log: records one behind the other ([`proto::stored`]), and where each begins.
//!
//! A file is named for the first number that it may hold. Its records are found by reading it once, when they are
//! first asked for.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use proto::stored::{FIRST, HEADER, MAX_FILE, MISSING, Record, record, scan};

/// What was not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// In which file.
    pub file: PathBuf,
    /// Where in it.
    pub at: u64,
    /// Numbers of the messages that are lost: from, to.
    pub lost: (u64, u64),
}

/// One file.
pub(super) struct Segment {
    path: PathBuf,
    /// The first number that it may hold.
    pub(super) first: u64,
    /// Bytes of it, as far as its records go.
    pub(super) size: u64,
    loaded: Option<Loaded>,
}

struct Loaded {
    file: File,
    offsets: Vec<u32>,
}

impl Segment {
    /// A new file, which is there also after a loss of power.
    pub(super) fn create(dir: &Path, first: u64) -> io::Result<Self> {
        let path = dir.join(name(first));
        // What is there under this name has no record: its number would have been counted.
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(&path)?;
        let made = file.write_all_at(&FIRST, 0).and_then(|()| file.sync_all());
        let made = made.and_then(|()| File::open(dir)?.sync_all());
        if let Err(error) = made {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        let loaded = Some(Loaded { file, offsets: Vec::new() });
        Ok(Self { path, first, size: HEADER as u64, loaded })
    }

    /// One that is there.
    pub(super) fn found(path: PathBuf, first: u64) -> io::Result<Self> {
        let size = std::fs::metadata(&path)?.len();
        Ok(Self { path, first, size, loaded: None })
    }

    /// Finds its records, unless that was done; gives what was damaged.
    pub(super) fn load(&mut self, below: u64, cut: bool) -> io::Result<Vec<Damage>> {
        if self.loaded.is_some() {
            return Ok(Vec::new());
        }
        let file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        let length = file.metadata()?.len().min(MAX_FILE);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, 0)?;
        let mut found = scan(&bytes, self.first, below);
        if cut && bytes.len() < HEADER {
            file.write_all_at(&FIRST, 0)?;
            (found.end, found.torn) = (HEADER, 1);
        }
        if cut && found.torn > 0 {
            // Of a message that was never acknowledged.
            file.set_len(found.end as u64)?;
            file.sync_all()?;
        } else if !cut && below != u64::MAX {
            // Another file follows: what is missing here is lost.
            let next = self.first + found.offsets.len() as u64;
            if next < below {
                found.damage.push((found.end, (next, below - 1)));
            }
        }
        self.size = found.end as u64;
        self.loaded = Some(Loaded { file, offsets: found.offsets });
        let damage = |(at, lost)| Damage { file: self.path.clone(), at: at as u64, lost };
        Ok(found.damage.into_iter().map(damage).collect())
    }

    /// Forgets where its records are, and closes it.
    pub(super) fn unload(&mut self) {
        self.loaded = None;
    }

    /// The number behind the last record, where they are known.
    pub(super) fn next(&self) -> Option<u64> {
        Some(self.first + self.loaded.as_ref()?.offsets.len() as u64)
    }

    /// Where the record with this number begins, or the next one that is there.
    pub(super) fn offset(&self, number: u64) -> u64 {
        let offset = self.loaded.as_ref().and_then(|loaded| loaded.from(self.place(number)));
        offset.map_or(self.size, |(_, offset)| u64::from(offset))
    }

    fn place(&self, number: u64) -> usize {
        usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX)
    }

    /// Writes records behind the others, and waits until they are on the disk.
    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let mut out = BytesMut::new();
        let mut offsets = Vec::with_capacity(records.len());
        for record in records {
            let at = self.size + out.len() as u64;
            offsets.push(u32::try_from(at).map_err(io::Error::other)?);
            record.put(&mut out);
        }
        let Some(loaded) = &mut self.loaded else {
            return Err(io::Error::other("the file is not open"));
        };
        let written = loaded.file.write_all_at(&out, self.size);
        if let Err(error) = written.and_then(|()| loaded.file.sync_data()) {
            // Not acknowledged, so not to be found either.
            let _ = loaded.file.set_len(self.size);
            return Err(error);
        }
        loaded.offsets.extend(offsets);
        self.size += out.len() as u64;
        Ok(())
    }

    /// Reads records from this number on, at most so many and about so many bytes, at least one; and those that were
    /// damaged since the file was opened.
    pub(super) fn read(
        &mut self,
        from: u64,
        most: usize,
        bytes: usize,
    ) -> io::Result<(Vec<Record>, Vec<Damage>)> {
        let (place, end) = (self.place(from), self.size);
        let Some(loaded) = &mut self.loaded else { return Ok((Vec::new(), Vec::new())) };
        let Some((first, offset)) = loaded.from(place) else { return Ok((Vec::new(), Vec::new())) };
        let begin = u64::from(offset);
        let behind = |place: usize| loaded.from(place).map_or(end, |(_, at)| u64::from(at));
        let mut last = first + 1;
        while last - first < most
            && last < loaded.offsets.len()
            && behind(last + 1) - begin <= bytes as u64
        {
            last += 1;
        }
        let length = usize::try_from(behind(last) - begin).map_err(io::Error::other)?;
        let mut read = vec![0; length];
        loaded.file.read_exact_at(&mut read, begin)?;
        let (mut records, mut damage) = (Vec::new(), Vec::new());
        for place in first..last {
            let offset = loaded.offsets[place];
            if offset == MISSING {
                continue;
            }
            let number = self.first + place as u64;
            let at = (u64::from(offset) - begin) as usize;
            match record::read(&read[at..]) {
                Ok(record) if record.number == number => records.push(record),
                Ok(_) | Err(_) => {
                    loaded.offsets[place] = MISSING;
                    let (file, at) = (self.path.clone(), u64::from(offset));
                    damage.push(Damage { file, at, lost: (number, number) });
                }
            }
        }
        Ok((records, damage))
    }

    pub(super) fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

impl Loaded {
    /// The first record at or behind this place that is there.
    fn from(&self, place: usize) -> Option<(usize, u32)> {
        let rest = self.offsets.get(place..)?;
        let there = rest.iter().position(|&offset| offset != MISSING)?;
        Some((place + there, rest[there]))
    }
}

/// What a file is called.
fn name(first: u64) -> String {
    format!("{first:020}.log")
}

/// The first number of a file that is called so.
pub(super) fn first_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_suffix(".log")?;
    (name.len() == 20).then(|| name.parse().ok()).flatten()
}
