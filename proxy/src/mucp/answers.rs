//! What a call is answered with: messages and an end, whatever carries them.

use std::future::poll_fn;
use std::task::Poll;

use http::{HeaderMap, HeaderValue};

use super::failure;
use super::frames::{Frames, Gathered, Stopped};
use super::socket::ROOM;
use crate::answer;
use crate::carry::leg::ended_early;
use crate::carry::{Held, Reply};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::headers::MICRO_NODE;
use crate::proxy::Shared;
use crate::pump::{self, Pump};
use crate::relay::broke_off;
use crate::source::Source;

/// A response that has begun, message by message.
pub(crate) struct Answers {
    frames: Frames,
    upload: Option<Box<Pump>>,
    held: Held,
    /// What the head said, and what the trailers say once they are there.
    pub(crate) metadata: HeaderMap,
    /// The status was in the head: nothing follows.
    only_head: bool,
}

/// How a call has ended, as MUCP says it.
pub(crate) enum End {
    Well,
    /// `Micro-Error`.
    Failed(HeaderValue),
}

impl Answers {
    pub(crate) fn new(shared: &Shared, reply: Reply) -> Self {
        let Reply { headers, body, upload, held, .. } = reply;
        let source = Source::new(body, Some(shared.limits.message), &shared.metrics.down);
        let frames = Frames::new(Box::new(source.of_service()), shared.room.clone());
        let only_head = headers.contains_key("grpc-status");
        Self { frames, upload, held, metadata: headers, only_head }
    }

    /// The next message; `None` when [`Answers::end`] tells how it ended. The rest of the request is
    /// sent meanwhile.
    ///
    /// # Errors
    /// Why the answer is not whole.
    pub(crate) async fn next(
        &mut self,
        deadline: &mut Deadline,
    ) -> Result<Option<Gathered>, Error> {
        if self.only_head {
            return Ok(None);
        }
        poll_fn(|cx| {
            if let Some(pump) = &mut self.upload {
                match pump.poll(cx) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(()) | Err(pump::Stopped::Closed)) => self.upload = None,
                    Poll::Ready(Err(pump::Stopped::Source(ended))) => {
                        let (error, code) = ended_early(ended);
                        pump.sink().reset(code);
                        return Poll::Ready(Err(error));
                    }
                }
            }
            if let Poll::Ready(next) = self.frames.poll_next(cx) {
                return Poll::Ready(next.map_err(|stopped| match stopped {
                    Stopped::Ended(ended) => broke_off(ended),
                    Stopped::NoRoom => no_room(),
                }));
            }
            deadline.poll(cx).map(|()| Err(Error::Deadline))
        })
        .await
    }

    /// How it ended, after its last message.
    pub(crate) fn end(&mut self) -> End {
        let trailers = if self.only_head {
            self.metadata.clone()
        } else {
            let trailers = self.frames.take_trailers();
            for (name, value) in &trailers {
                self.metadata.append(name, value.clone());
            }
            trailers
        };
        if self.upload.is_none() {
            self.held.ended();
        }
        failure::to_mucp(&trailers).map_or(End::Well, End::Failed)
    }
}

/// No more large messages are taken now.
pub(crate) fn no_room() -> Error {
    let mebibytes = u32::try_from(ROOM >> 20).unwrap_or(u32::MAX);
    Error::Overloaded { what: "room for large messages (in MiB) is", limit: mebibytes }
}

/// An error of ours, as `Micro-Error` and what marks it as one.
pub(crate) fn told(shared: &Shared, error: &Error) -> (HeaderValue, HeaderMap) {
    let node = shared.node_of(error);
    let trailers = answer::trailers(error, &node);
    let said = failure::to_mucp(&trailers);
    let said = said.unwrap_or_else(|| failure::new(&node, 500, &error.to_string()));
    let mut mark = HeaderMap::with_capacity(1);
    // `Micro-Error` is what services say, too; this header only nodes set.
    if let Some(node) = trailers.get(MICRO_NODE) {
        mark.insert(MICRO_NODE, node.clone());
    }
    (said, mark)
}
