//! What is changed on the machine itself, outside of micro's own directories, and how it is undone.
//!
//! ```text
//! dns enable ── undo record ─▶ resolver (resolved, or resolv.conf and a redirection)
//! dns disable ─ undo record ─▶ the bytes that were there
//! ```
//!
//! The rule is: shown first, recorded before it is done, taken back to the byte.

pub mod ask;
pub mod nft;
pub mod resolv_conf;
pub mod resolver;
pub mod undo;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::error::{Exit, Problem};

/// That a command may change the machine.
///
/// # Errors
/// M6007 for everybody but root.
pub fn need_root(what: &str, command: &str) -> Result<(), Problem> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let user = rustix::process::geteuid().as_raw();
    Err(Problem::new("M6007", Exit::NotAllowed, format!("{what} needs root"))
        .why(format!("this is user {user}, and all programs of the machine are concerned"))
        .attempt(format!("sudo {command}"), ""))
}

/// Replaces a file of the system as one step where that can be, keeping its mode. A file that is
/// mounted (as in containers) cannot be replaced and is written over.
///
/// # Errors
/// Those of the system; the file is then as it was, unless it was being written over.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Behind a link is what others write too.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let dir = path.parent().unwrap_or(Path::new("/"));
    match replaced(&path, dir, bytes) {
        Err(error) if is_in_the_way(&error) => written_over(&path, bytes),
        done => done,
    }
}

fn replaced(path: &Path, dir: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut fresh = tempfile::Builder::new().prefix(".micro-").tempfile_in(dir)?;
    fresh.write_all(bytes)?;
    let permissions = match std::fs::metadata(path) {
        Ok(old) => old.permissions(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => readable(),
        Err(error) => return Err(error),
    };
    fresh.as_file().set_permissions(permissions)?;
    fresh.as_file().sync_all()?;
    fresh.persist(path).map(drop).map_err(|error| error.error)
}

fn readable() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o644)
}

/// Whether a file cannot be replaced but perhaps be written: a mount, or a directory that is read-only.
fn is_in_the_way(error: &io::Error) -> bool {
    use io::ErrorKind::{CrossesDevices, PermissionDenied, ReadOnlyFilesystem, ResourceBusy};
    matches!(error.kind(), ResourceBusy | CrossesDevices | PermissionDenied | ReadOnlyFilesystem)
}

fn written_over(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).truncate(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Where a program of the system is, also where root's `PATH` is short.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    let places = std::env::split_paths(&path).chain(usual);
    places.map(|dir| dir.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn a_file_keeps_its_mode_and_the_links_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, "old").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&file, &link).unwrap();
        replace(&link, b"new").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        assert!(link.is_symlink());
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside it");
    }

    #[test]
    fn a_file_that_was_not_there_can_be_read_by_everybody() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        replace(&file, b"new").unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    }
}
