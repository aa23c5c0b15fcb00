//! Upgraded connections of other nodes: the head that says so, then bytes both ways.

use std::future::poll_fn;

use proto::fault::Code;

use crate::balance::Report;
use crate::carry::{Reply, Upgraded};
use crate::error::Error;
use crate::frames::{FrameSink, PartReader};
use crate::proxy::Shared;
use crate::splice::{self, Broken, Far, Peer};
use crate::{heads, upgrade};

/// Tells the caller's node that the instance has agreed, and serves the connection until it has ended.
///
/// # Errors
/// [`Error`] says which end broke it off.
pub(super) async fn serve(
    shared: &Shared,
    reply: Reply,
    upgraded: Option<Box<Upgraded>>,
    load: Report,
    mut sink: FrameSink,
    reader: PartReader,
) -> Result<(), Error> {
    let Reply { status, mut headers, held, .. } = reply;
    let Some(Upgraded { protocol, peer: Peer::Near(instance, first) }) = upgraded.map(|up| *up)
    else {
        return Err(Error::Malformed("what is upgraded here is of this node"));
    };
    upgrade::say(&mut headers, protocol);
    // Only one end of it is a connection that has such a field.
    headers.remove(http::header::CONNECTION);
    let Ok(frame) = heads::response(status, &headers, Some(load.into())) else {
        let error = Error::HeadTooLarge(proto::exchange::MAX_HEAD);
        super::fail(shared, &error, &mut sink).await;
        return Err(error);
    };
    sink.queue_frame(frame);
    if poll_fn(|cx| sink.poll_flush(cx)).await.is_err() {
        splice::abort(&instance);
        sink.reset(Code::Cancelled);
        return Err(Error::Cancelled);
    }
    let (recv, asked) = reader.into_half();
    let far = Far { send: sink.into_half(), recv, first: asked };
    // Seen from here the instance is the program, and the caller's node the other end.
    let (up, down) = (&shared.metrics.down, &shared.metrics.up);
    let ended = splice::both_ways(instance, first, Peer::Far(Box::new(far)), up, down).await;
    drop(held);
    ended.map_err(|broken| match broken {
        Broken::Program => Error::BrokeOff("the instance reset its connection".to_owned()),
        Broken::Peer => Error::Cancelled,
    })
}
