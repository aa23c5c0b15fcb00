//! The data plane's own thread: one current-thread runtime that owns listeners, links and calls, so
//! that nothing on a call's road crosses threads.

use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use crate::error::Problem;

/// A thread that runs what is spawned on it until it is stopped or dropped.
#[derive(Debug)]
pub struct Data {
    handle: Handle,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Data {
    /// Starts the thread.
    ///
    /// # Errors
    /// M6002 when the system gives no thread or event loop.
    pub fn start() -> Result<Self, Problem> {
        let failed = |error| Problem::machine("the data plane cannot be started", &error);
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (handle, stop) = (runtime.handle().clone(), CancellationToken::new());
        let stopped = stop.clone();
        let body = move || runtime.block_on(stopped.cancelled());
        let thread = std::thread::Builder::new().name("data".to_owned()).spawn(body);
        Ok(Self { handle, stop, thread: Some(thread.map_err(failed)?) })
    }

    /// The way there for parts that do not keep it alive.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs `work` there and waits for what it gives.
    ///
    /// # Errors
    /// M9001 when it panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Problem> {
        let done = self.handle.spawn(work).await;
        done.map_err(|why| Problem::bug(format!("a task of the data plane ended: {why}")))
    }

    /// Has `work` done there, for as long as the thread runs.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        drop(self.handle.spawn(work));
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // Its panics were told where they happened.
            let _ = thread.join();
        }
    }
}
