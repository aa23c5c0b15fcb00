//! Files that are either as they were or as they should be, whatever happens in between.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Who may read what is written here.
const MODE: u32 = 0o600;

/// Puts `bytes` in place of the file at `path`: written beside it, synced, renamed, and the rename
/// synced too. When it fails, what was there still is.
///
/// # Errors
/// Those of the file system: no space, no permission.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    prepare(path, bytes)?.put()
}

/// Writes `bytes` beside the file at `path` and syncs them: what takes space and permission is done,
/// and the file is as it was.
///
/// # Errors
/// Those of the file system: no space, no permission.
pub fn prepare(path: &Path, bytes: &[u8]) -> io::Result<Prepared> {
    // From here on it is removed when it is not put in its place: half a file would only take space
    // that is short already.
    let prepared = Prepared { beside: beside(path), path: path.to_owned() };
    write(&prepared.beside, bytes)?;
    Ok(prepared)
}

/// What is to become of a file, written beside it. Dropped, nothing has happened.
#[derive(Debug)]
#[must_use]
pub struct Prepared {
    beside: PathBuf,
    path: PathBuf,
}

impl Prepared {
    /// Puts it in place of the file, and syncs that.
    ///
    /// # Errors
    /// Those of the file system; what was there still is, unless only the sync failed.
    pub fn put(self) -> io::Result<()> {
        fs::rename(&self.beside, &self.path)?;
        sync_directory(&self.path)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // In its place already, it is there no more.
        let _ = fs::remove_file(&self.beside);
    }
}

/// Like [`replace`] for a file that must not exist yet.
///
/// # Errors
/// Those of the file system, and that the file exists.
pub fn create_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = beside(path);
    let linked = write(&beside, bytes).and_then(|()| fs::hard_link(&beside, path));
    let _ = fs::remove_file(&beside);
    linked?;
    sync_directory(path)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(MODE).open(path).or_else(|error| {
            // Left behind by a process that died in between; nobody else writes here.
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(error);
            }
            fs::remove_file(path)?;
            OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)
        })?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_prepared_and_not_put_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rules");
        replace(&path, b"one").unwrap();
        drop(prepare(&path, b"two").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"one");
        prepare(&path, b"three").unwrap().put().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_exists_is_not_overwritten_by_something_new() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        create_new(&path, b"first").unwrap();
        assert!(create_new(&path, b"second").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"first");
    }
}
