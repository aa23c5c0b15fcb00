//! `clock.Clock`: a stream that never ends by itself.

use std::pin::Pin;
use std::time::Duration;

use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

mod generated {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        reason = "generated from proto/clock.proto"
    )]
    tonic::include_proto!("clock");
}

use generated::clock_server::{Clock, ClockServer};
use generated::{NowRequest, Tick, WatchRequest};

/// Between two ticks when the caller does not say.
const INTERVAL: Duration = Duration::from_secs(1);
/// The shortest interval: a caller may not keep a core busy.
const SHORTEST: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct Wall;

/// The clock.
pub(super) fn service() -> ClockServer<Wall> {
    ClockServer::new(Wall)
}

#[tonic::async_trait]
impl Clock for Wall {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Tick, Status>> + Send>>;

    async fn now(&self, _request: Request<NowRequest>) -> Result<Response<Tick>, Status> {
        Ok(Response::new(tick(1)))
    }

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let WatchRequest { interval_ms, count } = request.into_inner();
        let interval = match interval_ms {
            0 => INTERVAL,
            ms => Duration::from_millis(u64::from(ms)).max(SHORTEST),
        };
        let mut beat = tokio::time::interval(interval);
        // A reader that fell behind gets the next tick on time, not all it has missed.
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut number = 0;
        let ticks = tokio_stream::wrappers::IntervalStream::new(beat).map(move |_| {
            number += 1;
            Ok(tick(number))
        });
        Ok(Response::new(match usize::try_from(count).unwrap_or(usize::MAX) {
            0 => Box::pin(ticks),
            count => Box::pin(ticks.take(count)),
        }))
    }
}

fn tick(number: u64) -> Tick {
    Tick { time: jiff::Timestamp::now().to_string(), number }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ticks_count_from_one_and_end_where_asked() {
        let request = Request::new(WatchRequest { interval_ms: 20, count: 3 });
        let stream = Wall.watch(request).await.expect("the clock runs").into_inner();
        let numbers: Vec<_> = stream.map(|tick| tick.expect("a tick").number).collect().await;
        assert_eq!(numbers, [1, 2, 3]);
    }
}
