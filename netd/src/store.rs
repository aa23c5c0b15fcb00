//! Where the records of programs are kept: `go.micro.store` of this node.
//!
//! ```text
//! call → Kept, a handle → a queue → one thread: Table, over a file of the state directory or memory
//! ```
//!
//! The thread does one thing after the other. Writes that wait together are made durable together, and
//! answered after that; so what was answered is there after a crash, and a disk is asked to sync once for
//! many writes. The file is made with the first write: most nodes store nothing.

mod table;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use proxy::own::store::{Find, Place, Record, Store, StoreError};
use tokio::sync::oneshot;

use self::table::{Change, Table};
use crate::error::Problem;

/// Requests that wait; more are refused.
const WAITING: usize = 1024;
/// Writes that are made durable together, at most.
const TOGETHER: usize = 256;
/// How often records whose time is over are taken away; nobody is shown one before that.
const SWEEP: Duration = Duration::from_secs(60);

/// Where records are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// In memory, until the node stops.
    Memory,
    /// In this file.
    File(PathBuf),
}

/// The store of a node. Its thread ends with it.
#[derive(Debug)]
pub struct Kept {
    queue: SyncSender<Ask>,
}

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// What is asked of the thread.
enum Ask {
    Get(Place, String, Answer<Option<Record>>),
    Find(Place, Find, Answer<Vec<Record>>),
    Keys(Place, Find, Answer<Vec<String>>),
    Change(Change, Answer<()>),
    Databases(Answer<Vec<String>>),
    Tables(String, Answer<Vec<String>>),
}

impl Kept {
    /// Starts the thread; opens nothing.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(backing: Backing) -> Result<Self, Problem> {
        let (queue, asks) = sync_channel(WAITING);
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || serve(Table::new(backing), &asks))
            .map_err(|error| Problem::machine("no thread for the store", &error))?;
        Ok(Self { queue })
    }

    fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(Answer<T>) -> Ask,
    ) -> BoxFuture<'_, Result<T, StoreError>> {
        let (answer, answered) = oneshot::channel();
        let sent = self.queue.try_send(ask(answer));
        async move {
            sent.map_err(|_full| StoreError::Busy)?;
            let gone = |_| StoreError::Failed("it has ended".to_owned());
            answered.await.map_err(gone)?
        }
        .boxed()
    }
}

impl Store for Kept {
    fn get(&self, place: Place, key: String) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        self.ask(|answer| Ask::Get(place, key, answer))
    }

    fn find(&self, place: Place, find: Find) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        self.ask(|answer| Ask::Find(place, find, answer))
    }

    fn keys(&self, place: Place, find: Find) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        self.ask(|answer| Ask::Keys(place, find, answer))
    }

    fn put(&self, place: Place, record: Record) -> BoxFuture<'_, Result<(), StoreError>> {
        self.ask(|answer| Ask::Change(Change::Put(place, record), answer))
    }

    fn delete(&self, place: Place, key: String) -> BoxFuture<'_, Result<(), StoreError>> {
        self.ask(|answer| Ask::Change(Change::Delete(place, key), answer))
    }

    fn databases(&self) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        self.ask(Ask::Databases)
    }

    fn tables(&self, database: String) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        self.ask(|answer| Ask::Tables(database, answer))
    }
}

/// Does what is asked until nobody can ask any more.
fn serve(mut table: Table, asks: &Receiver<Ask>) {
    let mut put_back = None;
    loop {
        let ask = match put_back.take() {
            Some(ask) => ask,
            None => match asks.recv_timeout(SWEEP) {
                Ok(ask) => ask,
                Err(RecvTimeoutError::Timeout) => {
                    table.sweep();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            },
        };
        // Whoever does not wait for an answer any more needs none.
        match ask {
            Ask::Get(place, key, answer) => drop(answer.send(table.get(&place, &key))),
            Ask::Find(place, find, answer) => drop(answer.send(table.find(&place, &find))),
            Ask::Keys(place, find, answer) => drop(answer.send(table.keys(&place, &find))),
            Ask::Databases(answer) => drop(answer.send(table.databases())),
            Ask::Tables(database, answer) => drop(answer.send(table.tables(&database))),
            Ask::Change(change, answer) => {
                let (mut changes, mut answers) = (vec![change], vec![answer]);
                while changes.len() < TOGETHER {
                    match asks.try_recv() {
                        Ok(Ask::Change(change, answer)) => {
                            changes.push(change);
                            answers.push(answer);
                        }
                        Ok(other) => {
                            put_back = Some(other);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                for (answer, done) in answers.into_iter().zip(table.change(changes)) {
                    drop(answer.send(done));
                }
            }
        }
    }
}
