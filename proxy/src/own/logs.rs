//! What this process logged last, and logs from now on: what `Debug.Log` reads.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use parking_lot::Mutex;
use prost::Message as _;
use proto::micro::debug as pb;
use tokio::sync::broadcast;

use super::failure::Failure;

/// Lines kept, as go-micro keeps them; the oldest go first.
const MAX_LINES: usize = 1024;
/// Bytes of one line; the rest is cut off.
const MAX_LINE: usize = 4096;
/// Lines that a reader may be behind; it misses the oldest of more.
const BEHIND: usize = 256;

/// The lines of one process. Whoever logs adds to it, whoever asks reads.
#[derive(Debug)]
pub struct Logs {
    kept: Mutex<VecDeque<Arc<pb::Record>>>,
    new: broadcast::Sender<Arc<pb::Record>>,
}

impl Default for Logs {
    fn default() -> Self {
        Self { kept: Mutex::default(), new: broadcast::Sender::new(BEHIND) }
    }
}

impl Logs {
    /// Adds a line that was logged now.
    pub fn add(&self, level: &str, target: &str, mut message: String) {
        message.truncate(message.floor_char_boundary(MAX_LINE));
        let metadata = [("level", level), ("target", target)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let timestamp = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let line = Arc::new(pb::Record { timestamp, metadata: BTreeMap::from(metadata), message });
        let mut kept = self.kept.lock();
        if kept.len() >= MAX_LINES {
            kept.pop_front();
        }
        kept.push_back(Arc::clone(&line));
        // Under the lock, so that a reader sees each line once. Often nobody reads.
        let _ = self.new.send(line);
    }

    /// The lines that `request` asks for: its last `count` (all, where it is 0) that are no older
    /// than `since` seconds since 1970, and then, if it says so, those to come.
    pub(super) fn read(
        self: &Arc<Self>,
        request: &pb::LogRequest,
    ) -> BoxStream<'static, Result<Bytes, Failure>> {
        let (mut lines, new) = {
            let kept = self.kept.lock();
            let recent = kept.iter().filter(|line| line.timestamp >= request.since).cloned();
            (recent.collect::<VecDeque<_>>(), request.stream.then(|| self.new.subscribe()))
        };
        if let Some(count) = usize::try_from(request.count).ok().filter(|count| *count > 0) {
            lines.drain(..lines.len().saturating_sub(count));
        }
        // Held, so that the stream of a node that logs nothing does not end.
        let logs = Arc::clone(self);
        Box::pin(stream::unfold((lines, new, logs), |(mut lines, mut new, logs)| async move {
            let line = match lines.pop_front() {
                Some(line) => line,
                None => next(new.as_mut()?).await?,
            };
            Some((Ok(Bytes::from(line.encode_to_vec())), (lines, new, logs)))
        }))
    }
}

async fn next(new: &mut broadcast::Receiver<Arc<pb::Record>>) -> Option<Arc<pb::Record>> {
    loop {
        match new.recv().await {
            Ok(line) => return Some(line),
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    async fn text(stream: &mut BoxStream<'static, Result<Bytes, Failure>>) -> Option<String> {
        let bytes = stream.next().await?.ok()?;
        Some(pb::Record::decode(bytes).unwrap().message)
    }

    #[tokio::test]
    async fn the_last_lines_are_read_and_then_those_to_come() {
        let logs = Arc::new(Logs::default());
        for n in 0..MAX_LINES + 2 {
            logs.add("INFO", "test", format!("line {n}"));
        }
        let all = pb::LogRequest::default();
        assert_eq!(logs.read(&all).count().await, MAX_LINES);
        let mut last = logs.read(&pb::LogRequest { count: 2, stream: true, ..all });
        assert_eq!(text(&mut last).await.unwrap(), "line 1024");
        assert_eq!(text(&mut last).await.unwrap(), "line 1025");
        logs.add("WARN", "test", "news".to_owned());
        assert_eq!(text(&mut last).await.unwrap(), "news");
        let later = pb::LogRequest { since: i64::MAX, ..pb::LogRequest::default() };
        assert_eq!(logs.read(&later).count().await, 0);
    }

    #[tokio::test]
    async fn a_long_line_is_cut_and_a_slow_reader_misses_the_oldest() {
        let logs = Arc::new(Logs::default());
        let mut slow = logs.read(&pb::LogRequest { stream: true, ..Default::default() });
        for _ in 0..BEHIND {
            logs.add("INFO", "test", "old".to_owned());
        }
        logs.add("INFO", "test", "é".repeat(MAX_LINE));
        let mut longest = 0;
        for _ in 0..BEHIND {
            longest = longest.max(text(&mut slow).await.unwrap().len());
        }
        assert_eq!(longest, MAX_LINE);
    }
}
