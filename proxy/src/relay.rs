//! The second half of a call: its response has begun, its request may still be on its way.

use std::future::poll_fn;
use std::task::Poll;

use crate::body::BodyError;
use crate::carry::leg::ended_early;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::pump::{Pump, Stopped};
use crate::source::Ended;

/// Moves the rest of the request and the response until the response has ended: the request need
/// not be whole by then (RFC 9113 §8.1).
///
/// # Errors
/// [`Error::Cancelled`] when the caller went away; otherwise why the response is not whole.
pub(crate) async fn both_ways(
    download: &mut Pump,
    upload: &mut Option<Box<Pump>>,
    deadline: &mut Deadline,
) -> Result<(), Error> {
    poll_fn(|cx| {
        if let Some(pump) = upload {
            match pump.poll(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(()) | Err(Stopped::Closed)) => *upload = None,
                Poll::Ready(Err(Stopped::Source(ended))) => {
                    let (error, code) = ended_early(ended);
                    pump.sink().reset(code);
                    return Poll::Ready(Err(error));
                }
            }
        }
        match download.poll(cx) {
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(Stopped::Closed)) => return Poll::Ready(Err(Error::Cancelled)),
            Poll::Ready(Err(Stopped::Source(ended))) => return Poll::Ready(Err(broke_off(ended))),
            Poll::Pending => {}
        }
        if download.sink().poll_closed(cx).is_ready() {
            return Poll::Ready(Err(Error::Cancelled));
        }
        deadline.poll(cx).map(|()| Err(Error::Deadline))
    })
    .await
}

/// Why a response ended before its end.
pub(crate) fn broke_off(ended: Ended) -> Error {
    match ended {
        Ended::TooLong(error) => Error::TooLong(error),
        Ended::Body(BodyError::Fault(fault)) => Error::Fault(fault),
        Ended::Body(
            error @ (BodyError::Cancelled
            | BodyError::Reset(_)
            | BodyError::Lost(_)
            | BodyError::Protocol(_)
            | BodyError::Other(_)),
        ) => Error::BrokeOff(error.to_string()),
    }
}
