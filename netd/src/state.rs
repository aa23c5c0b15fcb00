//! The state directory of one node: its key, its membership, which life it is in, whom it knew.
//!
//! ```text
//! $XDG_STATE_HOME/micro/NETWORK/NODE/    0700, one running node at a time
//!   node.key    the node's key               root.key     the network's root, on its first node
//!   credential  its grant, newest            issuer       its appointment as issuer
//!   reset.key   stateless reset (RFC 9000)   tickets      the issuer's ledger
//!   epoch       the life it is in            peers        last-known members, to find back
//!   store       records of programs                 labels     labels set by command
//!   rules       rules it keeps for the network      revisions  how far those of the etcd face went
//!   names       addresses of names that fell on one place
//! ```
//!
//! Every file is 0600 and replaced whole: written beside, synced, renamed. A node that cannot write
//! keeps serving with what it has in memory and says so; only what must be durable first (keys,
//! tickets) fails.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use proto::Epoch;
use rustix::fs::{FlockOperation, OFlags, flock};
use tunnel::durable::Prepared;

use crate::error::{Exit, Problem};

/// Bytes of a file kept here, unless its owner says otherwise: no more are read.
pub const MAX_FILE: u64 = 1 << 20;

/// The state directory of one node, held by this process alone.
#[derive(Debug)]
pub struct State {
    dir: PathBuf,
    /// Held for the life of the process; `None` where the directory cannot be written.
    _lock: Option<File>,
}

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process has it.
    #[error("another node uses {}", .0.display())]
    Busy(PathBuf),
    /// Others may look into it.
    #[error("{} may be read by others (mode {mode:04o}); it must be 0700", .dir.display())]
    Loose {
        /// Which directory.
        dir: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It belongs to another user.
    #[error("{} belongs to another user", .0.display())]
    Foreign(PathBuf),
    /// The file system does not let us.
    #[error("{}: {error}", .path.display())]
    File {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
}

impl State {
    /// Opens the directory, making it where it is missing, and takes its lock.
    ///
    /// A directory that holds a key but can no longer be written is opened all the same: a full
    /// disk must not keep a node from coming back.
    ///
    /// # Errors
    /// [`StateError`] when it cannot be made, is not private, or another node uses it.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        make_private(dir)?;
        check_private(dir)?;
        let lock = match take_lock(&dir.join("lock")) {
            Ok(lock) => Some(lock),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(StateError::Busy(dir.to_owned()));
            }
            Err(error) if dir.join("node.key").exists() => {
                tracing::warn!(dir = %dir.display(), %error, "state directory cannot be written");
                None
            }
            Err(error) => return Err(StateError::File { path: dir.join("lock"), error }),
        };
        Ok(Self { dir: dir.to_owned(), _lock: lock })
    }

    /// Whether a running node holds the directory.
    #[must_use]
    pub fn is_busy(dir: &Path) -> bool {
        let lock = OpenOptions::new().read(true).open(dir.join("lock"));
        lock.is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared).is_err())
    }

    /// The path of one of its files.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// What one of its files holds; `None` where there is none.
    ///
    /// # Errors
    /// [`StateError::File`] when it is there and cannot be read, or is no plain file of ours.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        self.read_up_to(name, MAX_FILE)
    }

    /// As [`State::read`], up to so many bytes.
    ///
    /// # Errors
    /// As [`State::read`].
    pub fn read_up_to(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.path(name);
        let failed = |error| StateError::File { path: path.clone(), error };
        // No following: a link put there must not make this node read another file.
        let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes).map_err(failed)?;
        Ok(Some(bytes))
    }

    /// Replaces one of its files, whole and durable. When it fails, what was there still is.
    ///
    /// # Errors
    /// [`StateError::File`] with the words of the system.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let path = self.path(name);
        tunnel::durable::replace(&path, bytes).map_err(|error| StateError::File { path, error })
    }

    /// Writes what is to become of one of its files beside it: see [`tunnel::durable::prepare`].
    ///
    /// # Errors
    /// [`StateError::File`] with the words of the system.
    pub fn prepare(&self, name: &str, bytes: &[u8]) -> Result<Prepared, StateError> {
        let path = self.path(name);
        tunnel::durable::prepare(&path, bytes).map_err(|error| StateError::File { path, error })
    }

    /// Begins the next life: later than all that are on record here, even where the clock was set
    /// back in between. Where it cannot be written down, the clock alone decides.
    pub fn next_epoch(&self, clock_ms: u64) -> Epoch {
        let last = self.read("epoch").ok().flatten();
        let last = last.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.trim().parse().ok());
        let epoch = clock_ms.max(last.map_or(0, |last: u64| last.saturating_add(1)));
        if let Err(error) = self.write("epoch", epoch.to_string().as_bytes()) {
            tracing::warn!(%error, "which life this node is in could not be written down");
        }
        Epoch(epoch)
    }
}

fn make_private(dir: &Path) -> Result<(), StateError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| StateError::File { path: dir.to_owned(), error })
}

fn check_private(dir: &Path) -> Result<(), StateError> {
    let found = fs::metadata(dir);
    let found = found.map_err(|error| StateError::File { path: dir.to_owned(), error })?;
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(StateError::Foreign(dir.to_owned()));
    }
    match found.mode() & 0o7777 {
        mode if mode & 0o077 != 0 => Err(StateError::Loose { dir: dir.to_owned(), mode }),
        _ => Ok(()),
    }
}

fn take_lock(path: &Path) -> io::Result<File> {
    let open = || OpenOptions::new().read(true).open(path);
    let file = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
            open()?
        }
        opened => opened?,
    };
    // Held by one that only reads: a file open for writing keeps the whole file system from being
    // made read-only.
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

impl From<StateError> for Problem {
    fn from(error: StateError) -> Self {
        let problem = |what: &str| Self::new("M6003", Exit::Failed, what).why(error.to_string());
        match &error {
            StateError::Busy(_) => {
                Self::new("M6004", Exit::Failed, "a node of this name is already running")
                    .why(error.to_string())
                    .attempt("micro status", "use the node that is already running")
                    .attempt("micro network --name b", "run a second one")
            }
            StateError::Loose { dir, .. } => problem("the state directory is not private")
                .attempt(format!("chmod 700 {}", dir.display()), ""),
            StateError::Foreign(_) => problem("the state directory is not ours")
                .attempt("micro config path", "shows where it is"),
            StateError::File { .. } => problem("the state directory cannot be used")
                .attempt("micro config path", "shows where it is; it must be writable"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_directory_is_made_private_and_held_by_one_node() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("acme/fra-1");
        let state = State::open(&dir).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        assert!(State::is_busy(&dir));
        assert!(matches!(State::open(&dir), Err(StateError::Busy(_))));
        drop(state);
        assert!(!State::is_busy(&dir));
        State::open(&dir).unwrap();
    }

    #[test]
    fn a_directory_that_others_may_read_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("node");
        drop(State::open(&dir).unwrap());
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(State::open(&dir), Err(StateError::Loose { mode: 0o755, .. })));
    }

    #[test]
    fn files_are_private_and_come_back() {
        let root = tempfile::tempdir().unwrap();
        let state = State::open(&root.path().join("node")).unwrap();
        assert_eq!(state.read("peers").unwrap(), None);
        state.write("peers", b"[]").unwrap();
        assert_eq!(state.read("peers").unwrap().as_deref(), Some(&b"[]"[..]));
        assert_eq!(fs::metadata(state.path("peers")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_link_in_place_of_a_file_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let state = State::open(&root.path().join("node")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", state.path("credential")).unwrap();
        assert!(state.read("credential").is_err());
    }

    #[test]
    fn each_life_is_later_than_the_last_even_when_the_clock_is_set_back() {
        let root = tempfile::tempdir().unwrap();
        let state = State::open(&root.path().join("node")).unwrap();
        assert_eq!(state.next_epoch(1_000), Epoch(1_000));
        assert_eq!(state.next_epoch(400), Epoch(1_001));
        assert_eq!(state.next_epoch(2_000), Epoch(2_000));
    }
}
