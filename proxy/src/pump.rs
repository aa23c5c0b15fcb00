//! Moves one body from where it comes to where it goes, as fast as the slower side takes it.

use std::task::{Context, Poll, ready};

use crate::body::Part;
use crate::sink::Sink;
use crate::source::{Ended, Source};

/// One direction of an exchange.
pub(crate) struct Pump {
    source: Box<Source>,
    sink: Sink,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    Moving,
    /// All parts are queued; `said` when the last one told that it is the last.
    Ending {
        said: bool,
    },
    Done,
}

/// Why a pump stopped before the end.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// The body ended early.
    Source(Ended),
    /// The other side wants nothing more.
    Closed,
}

/// Parts moved before others get a turn: a body that never runs dry must not hold the thread.
const TURN: usize = 64;

impl Pump {
    /// Moves `source` into `sink`.
    pub(crate) fn new(source: Box<Source>, sink: Sink) -> Self {
        Self { source, sink, state: State::Moving }
    }

    /// Ready when the body is moved whole.
    ///
    /// # Errors
    /// [`Stopped`] says which side ended it. The sink is left as it is: reset it or let it go.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        for _ in 0..TURN {
            match self.state {
                State::Moving => {}
                State::Ending { said } => {
                    ready!(self.sink.poll_flush(cx)).map_err(|_| Stopped::Closed)?;
                    self.sink.finish(said).map_err(|_| Stopped::Closed)?;
                    self.state = State::Done;
                    return Poll::Ready(Ok(()));
                }
                State::Done => return Poll::Ready(Ok(())),
            }
            ready!(self.sink.poll_ready(cx)).map_err(|_| Stopped::Closed)?;
            match self.source.poll_part(cx) {
                Poll::Ready(Some(Ok(Part::Data(data)))) => {
                    let last = self.source.is_end();
                    self.sink.queue(data, last).map_err(|_| Stopped::Closed)?;
                    if last {
                        self.state = State::Ending { said: true };
                    }
                }
                Poll::Ready(Some(Ok(Part::Trailers(trailers)))) => {
                    self.sink.queue_trailers(trailers).map_err(|_| Stopped::Closed)?;
                    self.state = State::Ending { said: true };
                }
                Poll::Ready(Some(Err(ended))) => return Poll::Ready(Err(Stopped::Source(ended))),
                Poll::Ready(None) => self.state = State::Ending { said: false },
                Poll::Pending => {
                    ready!(self.sink.poll_flush(cx)).map_err(|_| Stopped::Closed)?;
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Gives the source back, to be sent elsewhere.
    pub(crate) fn into_source(self) -> Box<Source> {
        self.source
    }

    pub(crate) fn source(&mut self) -> &mut Source {
        &mut self.source
    }

    pub(crate) fn sink(&mut self) -> &mut Sink {
        &mut self.sink
    }
}
