//! The life of one back end's watch: begun, lost, begun again, ever more seldom while it does not help.

use std::time::Duration;

use tokio::sync::mpsc;

use super::entry::{Read, Rules, checked};
use super::source::Source;
use super::standing::Trouble;
use super::table::Heard;

/// Before the first try again.
const FIRST: Duration = Duration::from_millis(500);
/// Between tries, at most: what comes back is seen within this.
const LONGEST: Duration = Duration::from_secs(30);

/// The way from a source to what is known of its back end.
#[derive(Debug)]
pub(super) struct Feed {
    to: mpsc::Sender<Heard>,
    rules: Rules,
    /// Whether this session has heard all there is.
    listed: bool,
}

impl Feed {
    pub(super) fn new(to: mpsc::Sender<Heard>, rules: Rules) -> Self {
        Self { to, rules, listed: false }
    }

    /// Everything there is.
    ///
    /// # Errors
    /// When nobody listens any more; so with the others.
    pub(super) async fn all(&mut self, all: Vec<(String, Read)>) -> Result<(), Trouble> {
        let check = |(key, read): (String, Read)| (key, self.check(read));
        let all = all.into_iter().map(check).collect();
        self.tell(Heard::All(all)).await?;
        self.listed = true;
        Ok(())
    }

    /// One entry, new or changed.
    ///
    /// # Errors
    /// As [`Feed::all`].
    pub(super) async fn put(&mut self, key: String, read: Read) -> Result<(), Trouble> {
        let read = self.check(read);
        self.tell(Heard::Put(key, read)).await
    }

    /// An entry is gone.
    ///
    /// # Errors
    /// As [`Feed::all`].
    pub(super) async fn gone(&mut self, key: String) -> Result<(), Trouble> {
        self.tell(Heard::Gone(key)).await
    }

    /// It cannot be watched now.
    ///
    /// # Errors
    /// As [`Feed::all`].
    pub(super) async fn lost(&mut self, trouble: Trouble) -> Result<(), Trouble> {
        self.tell(Heard::Lost(trouble)).await
    }

    fn check(&self, read: Read) -> Read {
        read.and_then(|said| checked(said, &self.rules))
    }

    async fn tell(&self, heard: Heard) -> Result<(), Trouble> {
        self.to.send(heard).await.map_err(|_| Trouble::new("the node is leaving"))
    }
}

/// Watches a back end until nobody listens any more.
pub(super) async fn run(mut source: Source, mut feed: Feed) {
    let mut wait = FIRST;
    loop {
        feed.listed = false;
        let ended = source.watch(&mut feed).await;
        if feed.listed {
            wait = FIRST;
        }
        if let Err(trouble) = ended {
            if trouble.refused {
                wait = LONGEST;
            }
            if feed.lost(trouble).await.is_err() {
                return;
            }
        }
        if feed.to.is_closed() {
            return;
        }
        tokio::time::sleep(wait.mul_f64(0.75 + 0.5 * crate::upkeep::chance())).await;
        wait = (wait * 2).min(LONGEST);
    }
}
