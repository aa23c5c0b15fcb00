//! How far the revisions of the etcd face have gone, so that they never go back on this node.
//!
//! A life begins above the clock, in milliseconds, and above all that earlier lives may have given
//! out, which is noted in the file `revisions` of the state directory before it is used. Where that
//! cannot be written, the clock alone decides.

use std::sync::Arc;

use proxy::own::etcd::{RESERVE, Revisions};
use tokio::sync::watch;

use crate::state::State;

const FILE: &str = "revisions";

/// The revisions of one node.
#[derive(Debug)]
pub struct Kept {
    first: i64,
    /// How far they may go, for who writes it down.
    up_to: watch::Sender<i64>,
}

impl Kept {
    /// Begins a life: `clock_ms` is the time of day. What is reserved later is written by a task of the
    /// runtime this runs on, which ends with this.
    #[must_use]
    pub fn start(state: Arc<State>, clock_ms: u64) -> Self {
        let last = state.read(FILE).ok().flatten();
        let last = last.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.trim().parse().ok());
        let clock = i64::try_from(clock_ms).unwrap_or(i64::MAX / 2);
        let first = clock.max(last.map_or(0, |last: i64| last.clamp(0, i64::MAX / 2)));
        write(&state, first + RESERVE);
        let up_to = watch::Sender::new(first + RESERVE);
        let mut reserved = up_to.subscribe();
        tokio::spawn(async move {
            while reserved.changed().await.is_ok() {
                let (state, up_to) = (Arc::clone(&state), *reserved.borrow_and_update());
                // A disk may be slow; half of what was reserved before is left meanwhile.
                let _ = tokio::task::spawn_blocking(move || write(&state, up_to)).await;
            }
        });
        Self { first, up_to }
    }
}

impl Revisions for Kept {
    fn first(&self) -> i64 {
        self.first
    }

    fn reserve(&self, up_to: i64) {
        self.up_to.send_replace(up_to);
    }
}

fn write(state: &State, up_to: i64) {
    if let Err(error) = state.write(FILE, up_to.to_string().as_bytes()) {
        tracing::warn!(%error, "how far revisions have gone could not be written down");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(dir: &tempfile::TempDir) -> Arc<State> {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        Arc::new(State::open(dir.path()).unwrap())
    }

    #[tokio::test]
    async fn a_life_begins_above_the_last_one_whatever_the_clock_says() {
        let dir = tempfile::tempdir().unwrap();
        let state = state(&dir);
        let first = Kept::start(Arc::clone(&state), 5_000);
        assert_eq!(first.first(), 5_000);
        // Killed without a word, with the clock set back.
        let second = Kept::start(Arc::clone(&state), 3);
        assert_eq!(second.first(), 5_000 + RESERVE);
        second.reserve(900_000);
        let noted = async {
            while state.read(FILE).unwrap().unwrap() != b"900000" {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), noted).await.unwrap();
        assert_eq!(Kept::start(Arc::clone(&state), 7).first(), 900_000);
        assert_eq!(Kept::start(state, 2_000_000).first(), 2_000_000);
    }
}
