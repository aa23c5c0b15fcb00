//! A body being sent, which may have to be sent a second time from its start.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use prometheus_client::metrics::counter::Counter;
use smallvec::SmallVec;

use crate::body::{Body, BodyError, Part};
use crate::headers;
use crate::message::{Meter, TooLong};

/// A body, what the message rule asks of it, and for requests what was already sent of it.
pub(crate) struct Source {
    body: Body,
    meter: Option<Meter>,
    replay: Option<Replay>,
    /// Something was taken from the body.
    begun: bool,
    /// Counts the bytes taken from the body.
    counter: Counter,
    /// The body is a service's response: see [`headers::clean_response`].
    of_service: bool,
}

/// What a request body gave until now, so that another instance can be given the same.
struct Replay {
    data: SmallVec<[Bytes; 2]>,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// The part of `data` to give next.
    next: usize,
    /// Bytes that may still be kept.
    room: usize,
}

/// Why a source ended early.
#[derive(Debug)]
pub(crate) enum Ended {
    Body(BodyError),
    TooLong(TooLong),
}

impl Source {
    /// `body`; with a limit for messages when it is gRPC. Its bytes are added to `counter`.
    pub(crate) fn new(body: Body, message: Option<u32>, counter: &Counter) -> Self {
        Self {
            body,
            meter: message.map(Meter::new),
            replay: None,
            begun: false,
            counter: counter.clone(),
            of_service: false,
        }
    }

    /// Takes the source out, leaving an empty one.
    pub(crate) fn take(&mut self) -> Self {
        let empty = Self::new(Body::empty(), None, &self.counter);
        std::mem::replace(self, empty)
    }

    /// The same, of a service's response: what only nodes may say is taken out of its trailers.
    pub(crate) fn of_service(mut self) -> Self {
        self.of_service = true;
        self
    }

    /// The same, keeping up to `room` bytes until [`Source::commit`].
    pub(crate) fn replayable(mut self, room: usize) -> Self {
        if !self.body.is_end() {
            let data = SmallVec::new();
            self.replay = Some(Replay { data, trailers: None, ended: false, next: 0, room });
        }
        self
    }

    /// Begins again from the start. `false`: what was given is not here any more.
    pub(crate) fn rewind(&mut self) -> bool {
        match &mut self.replay {
            Some(replay) => replay.next = 0,
            None => return !self.begun && self.body.is_end(),
        }
        true
    }

    /// Nothing will be sent again: stops keeping, and forgets what was kept once it is given.
    pub(crate) fn commit(&mut self) {
        if let Some(replay) = &mut self.replay {
            replay.room = 0;
            if replay.next == replay.data.len() && !replay.ended {
                self.replay = None;
            }
        }
    }

    /// Whether it is known that nothing follows, not even trailers.
    pub(crate) fn is_end(&self) -> bool {
        match &self.replay {
            Some(replay) if replay.next < replay.data.len() => false,
            Some(replay) if replay.ended => replay.trailers.is_none(),
            Some(_) | None => self.body.is_end(),
        }
    }

    pub(crate) fn body(&self) -> &Body {
        &self.body
    }

    /// The next part: of what is to be given again, then of the body itself.
    pub(crate) fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Ended>>> {
        if let Some(replay) = &mut self.replay {
            if let Some(data) = replay.data.get(replay.next) {
                replay.next += 1;
                return Poll::Ready(Some(Ok(Part::Data(data.clone()))));
            }
            if replay.ended {
                return Poll::Ready(replay.trailers.clone().map(|t| Ok(Part::Trailers(t))));
            }
        }
        let part = match ready!(self.poll_body(cx)) {
            Some(Err(ended)) => return Poll::Ready(Some(Err(ended))),
            Some(Ok(part)) => Some(part),
            None => None,
        };
        self.keep(part.as_ref());
        Poll::Ready(part.map(Ok))
    }

    /// The next part of the body itself.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Ended>>> {
        let part = match ready!(self.body.poll_part(cx)) {
            Some(Err(error)) => return Poll::Ready(Some(Err(Ended::Body(error)))),
            Some(Ok(Part::Trailers(mut trailers))) => {
                if self.of_service {
                    headers::clean_response(&mut trailers);
                }
                Some(Part::Trailers(trailers))
            }
            Some(Ok(part)) => Some(part),
            None => None,
        };
        if let Some(Part::Data(data)) = &part {
            self.begun = true;
            self.counter.inc_by(data.len() as u64);
            if let Some(meter) = &mut self.meter
                && let Err(error) = meter.see(data)
            {
                return Poll::Ready(Some(Err(Ended::TooLong(error))));
            }
        }
        Poll::Ready(part.map(Ok))
    }

    /// Reads ahead what is there of the body, without waiting and as far as there is room; nothing
    /// is lost, for it is given again from the start.
    pub(crate) fn gather(&mut self, cx: &mut Context<'_>) -> Result<(), Ended> {
        while self.replay.as_ref().is_some_and(|replay| !replay.ended && replay.room > 0) {
            match self.poll_body(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Err(ended))) => return Err(ended),
                Poll::Ready(Some(Ok(part))) => {
                    if let (Part::Data(data), Some(replay)) = (&part, &mut self.replay) {
                        // One piece more than there is room for is kept, rather than lost.
                        replay.room = replay.room.max(data.len());
                    }
                    self.keep(Some(&part));
                }
                Poll::Ready(None) => self.keep(None),
            }
        }
        if let Some(replay) = &mut self.replay {
            replay.next = 0;
        }
        Ok(())
    }

    /// The same body once more, if it is here whole.
    pub(crate) fn copy(&self) -> Option<Self> {
        let replay = match &self.replay {
            Some(Replay { ended: true, data, trailers, .. }) => Some(Replay {
                data: data.clone(),
                trailers: trailers.clone(),
                ended: true,
                next: 0,
                room: 0,
            }),
            None if !self.begun && self.body.is_end() => None,
            Some(_) | None => return None,
        };
        Some(Self { replay, ..Self::new(Body::empty(), None, &self.counter) })
    }

    fn keep(&mut self, part: Option<&Part>) {
        let Some(replay) = &mut self.replay else { return };
        match part {
            Some(Part::Data(data)) if data.len() > replay.room => self.replay = None,
            Some(Part::Data(data)) => {
                replay.room -= data.len();
                replay.data.push(data.clone());
                replay.next = replay.data.len();
            }
            Some(Part::Trailers(trailers)) => {
                replay.trailers = Some(trailers.clone());
                replay.ended = true;
            }
            None => replay.ended = true,
        }
    }
}
