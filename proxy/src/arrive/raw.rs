//! Bytes of other nodes: a connection to an instance here, and both ways until both have ended.

use std::pin::pin;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use proto::exchange::{FrameKind, Load, put_header};
use proto::fault::Code;
use proto::{Credential, Open};
use tokio::net::TcpStream;
use tunnel::{SendHalf, Stream};

use super::{LAST_WORD, asked_for, spoken};
use crate::balance::Outcome as Settled;
use crate::balance::shell::AtInstance;
use crate::carry::{Form, outcome};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::metrics::{Face, Outcome};
use crate::proxy::Shared;
use crate::splice::{self, Broken, Far, Peer};

/// Serves one connection of another node until it has ended.
pub(super) async fn serve(shared: &Shared, grant: &Credential, open: &Open, stream: Stream) {
    let began = Instant::now();
    let Stream { mut send, recv } = stream;
    let counted = shared.arrivals.enter(shared.limits.arrivals);
    let begun = if counted.is_some() {
        begin(shared, grant, open, &mut send).await
    } else {
        let limit = shared.limits.arrivals;
        Err(Error::Overloaded { what: "the node of the service is", limit })
    };
    let (instance, _at) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            shared.metrics.call(Face::LinkTcp, Outcome::from(&error), began.elapsed());
            return refuse(shared, &error, send).await;
        }
    };
    // Seen from here the instance is the program, and the caller's node the other end.
    let (up, down) = (&shared.metrics.down, &shared.metrics.up);
    let far = Far { send, recv, first: Bytes::new() };
    let ended = splice::both_ways(instance, Bytes::new(), Peer::Far(Box::new(far)), up, down).await;
    let outcome = match ended {
        Ok(()) => Outcome::Answered,
        Err(Broken::Program) => Outcome::Broken,
        Err(Broken::Peer) => Outcome::Cancelled,
    };
    shared.metrics.call(Face::LinkTcp, outcome, began.elapsed());
}

/// Connects to the instance, and says that it has taken the connection.
async fn begin(
    shared: &Shared,
    grant: &Credential,
    open: &Open,
    send: &mut SendHalf,
) -> Result<(TcpStream, AtInstance), Error> {
    let deadline = Deadline::default();
    let (service, found) = asked_for(shared, grant, open, &deadline)?;
    spoken(&service, &found, Form::Bytes)?;
    let mut at = shared.take(&service, found.key)?;
    let host = shared.deliver.host(&found.address);
    let dialled = {
        let mut dial = pin!(shared.deliver.dial(&host));
        tokio::select! {
            biased;
            // The caller gave up while the instance was being dialled.
            _ = send.stopped() => return Err(Error::Cancelled),
            dialled = &mut dial => dialled,
        }
    };
    let socket = match dialled {
        Ok(socket) => socket,
        Err(error) => {
            if let Some(outcome) = outcome::of_error(&error) {
                at.settle(outcome, None);
            }
            return Err(error);
        }
    };
    let load: Load = at.settle(Settled::Answered, None).into();
    let mut frame = BytesMut::with_capacity(Load::MAX_FRAME);
    load.put(&mut frame);
    send.write(&mut [frame.freeze()]).await.map_err(|_| Error::Cancelled)?;
    Ok((socket, at))
}

/// Tells the caller's node why there is no connection.
pub(super) async fn refuse(shared: &Shared, error: &Error, mut send: SendHalf) {
    if matches!(error, Error::Cancelled) {
        return send.reset(Code::Cancelled);
    }
    let mut body = BytesMut::with_capacity(128);
    error.to_fault(shared.me).encode(&mut body);
    let mut frame = BytesMut::with_capacity(9 + body.len());
    put_header(&mut frame, FrameKind::Fault, body.len());
    frame.extend_from_slice(&body);
    match tokio::time::timeout(LAST_WORD, send.write(&mut [frame.freeze()])).await {
        Ok(Ok(())) => send.finish(),
        Ok(Err(_)) | Err(_) => send.reset(Code::Broken),
    }
}
