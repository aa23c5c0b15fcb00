//! The consumers of a stream on disk: what each is, and how far it has come.
//!
//! `NAME.json` is written when a consumer is made, and is on the disk when its program hears of it. `NAME.progress`
//! is written now and then: a crash costs messages that are given again, and so does a file that cannot be read.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::api::ConsumerConfig;
use super::consumer::Progress;

/// What a consumer is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// As its program asked for it.
    pub config: ConsumerConfig,
    /// When: microseconds since 1970, UTC.
    pub created: u64,
    /// The number of the first message that is for it.
    pub start: u64,
}

/// The directory of them.
pub struct Saved(PathBuf);

impl Saved {
    /// One, which is made where there is none.
    ///
    /// # Errors
    /// Where it cannot be.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }

    /// All consumers, and why others cannot be read.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    #[expect(clippy::type_complexity, reason = "one use, where it is taken apart")]
    pub fn read(&self) -> io::Result<(Vec<(String, Made, Progress)>, Vec<String>)> {
        let (mut all, mut wrong) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(&self.0)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(name) = name.and_then(|name| name.strip_suffix(".json")) else { continue };
            let made: Made = match read(&path) {
                Ok(made) => made,
                Err(why) => {
                    wrong.push(format!("{}: {why}", path.display()));
                    continue;
                }
            };
            let progress = self.path(name, "progress");
            let from_the_start = Progress::at(made.start);
            let progress = match read(&progress) {
                Ok(progress) => progress,
                Err(_) if !progress.exists() => from_the_start,
                Err(why) => {
                    wrong.push(format!("{}: {why}", progress.display()));
                    from_the_start
                }
            };
            all.push((name.to_owned(), made, progress));
        }
        all.sort_by(|one, other| one.0.cmp(&other.0));
        Ok((all, wrong))
    }

    /// Keeps what a consumer is; on the disk when this returns.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn make(&self, name: &str, made: &Made) -> io::Result<()> {
        let bytes = serde_json::to_vec(made).map_err(io::Error::other)?;
        tunnel::durable::replace(&self.path(name, "json"), &bytes)
    }

    /// Keeps how far it has come; on the disk when this returns, where that is asked for.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn progress(&self, name: &str, progress: &Progress, durable: bool) -> io::Result<()> {
        let bytes = serde_json::to_vec(progress).map_err(io::Error::other)?;
        let path = self.path(name, "progress");
        if durable {
            return tunnel::durable::replace(&path, &bytes);
        }
        let beside = self.path(name, "new");
        std::fs::write(&beside, &bytes)?;
        std::fs::rename(beside, path)
    }

    /// Removes a consumer.
    ///
    /// # Errors
    /// Where it cannot be.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let gone = |path: PathBuf| match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        };
        gone(self.path(name, "json")).and(gone(self.path(name, "progress")))
    }

    fn path(&self, name: &str, kind: &str) -> PathBuf {
        self.0.join(format!("{name}.{kind}"))
    }
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> io::Result<T> {
    serde_json::from_slice(&std::fs::read(path)?).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read_and_what_cannot_be_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let saved = Saved::open(dir.path().join("consumers")).unwrap();
        let made = Made { config: ConsumerConfig::default(), created: 7, start: 3 };
        for name in ["a", "b", "c"] {
            saved.make(name, &made).unwrap();
        }
        let far = Progress::at(9);
        saved.progress("a", &far, false).unwrap();
        saved.progress("a", &far, true).unwrap();
        std::fs::write(dir.path().join("consumers/b.progress"), b"{\"ne").unwrap();
        saved.remove("c").unwrap();
        saved.remove("c").unwrap();
        let (all, wrong) = saved.read().unwrap();
        let next: Vec<_> = all.iter().map(|(name, _, at)| (name.as_str(), at.next)).collect();
        assert_eq!(next, [("a", 9), ("b", 3)]);
        assert!(wrong.len() == 1 && wrong[0].contains("b.progress"), "{wrong:?}");
        std::fs::write(dir.path().join("consumers/a.json"), b"").unwrap();
        assert_eq!(saved.read().unwrap().0.len(), 1);
    }
}
