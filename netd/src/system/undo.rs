//! The record of a change: written before it is made, so that whatever happens in between, what was
//! there is known.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Problem;

/// A file of the system that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The file.
    pub path: PathBuf,
    /// Its bytes before; `None`: it was not there.
    pub before: Option<String>,
    /// Its bytes since.
    pub after: String,
    /// When: RFC 3339, UTC.
    pub at: String,
}

/// Where the record of one thing is kept.
#[derive(Clone, Debug)]
pub struct Record {
    path: PathBuf,
}

impl Record {
    /// The record called `name` in the state directory.
    #[must_use]
    pub fn new(state: &Path, name: &str) -> Self {
        Self { path: state.join("system").join(name).with_extension("json") }
    }

    /// What was changed, if anything was and can be read.
    #[must_use]
    pub fn read(&self) -> Option<Change> {
        serde_json::from_slice(&std::fs::read(&self.path).ok()?).ok()
    }

    /// Writes it, to the disk.
    ///
    /// # Errors
    /// M6002 when it cannot be: nothing may be changed then.
    pub fn write(&self, change: &Change) -> Result<(), Problem> {
        let failed = |error: std::io::Error| {
            let what = format!("the undo record {} cannot be written", self.path.display());
            Problem::machine(what, &error)
        };
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(dir).map_err(failed)?;
        let bytes = serde_json::to_vec_pretty(change)
            .map_err(|error| Problem::bug(format!("an undo record cannot be written: {error}")))?;
        tunnel::durable::replace(&self.path, &bytes).map_err(failed)
    }

    /// Forgets it: what it was about is undone.
    pub fn remove(&self) {
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            let path = self.path.display();
            crate::output::warn(&format!("the undo record {path} cannot be removed: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record::new(dir.path(), "dns");
        assert_eq!(record.read(), None);
        let change = Change {
            path: "/etc/resolv.conf".into(),
            before: Some("nameserver 192.0.2.1\n".to_owned()),
            after: String::new(),
            at: "2026-01-01T00:00:00Z".to_owned(),
        };
        record.write(&change).unwrap();
        assert_eq!(record.read(), Some(change));
        std::fs::write(dir.path().join("system/dns.json"), "{").unwrap();
        assert_eq!(record.read(), None, "one that was cut off is none");
        record.remove();
        record.remove();
        assert_eq!(record.read(), None);
    }
}
