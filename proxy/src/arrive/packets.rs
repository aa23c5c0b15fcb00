//! Flows of other nodes: packets to an instance here, and both ways until nothing passes any more.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use proto::exchange::Load;
use proto::{Credential, Open};
use tunnel::Stream;

use super::{asked_for, raw, spoken};
use crate::balance::Outcome as Settled;
use crate::carry::{Form, outcome};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::metrics::{Face, Outcome};
use crate::proxy::{Shared, drained};
use crate::udp::carry::{Ended, carry};
use crate::udp::ends::{Ends, Far, Near};

/// Serves one flow of another node until it has ended, or this node does.
pub(super) async fn serve(shared: &Shared, grant: &Credential, open: &Open, stream: Stream) {
    let began = Instant::now();
    let Stream { send, recv } = stream;
    let limit = shared.limits.flow_arrivals;
    let counted = shared.flow_arrivals.enter(limit);
    // Packets are listened for before the caller is told that it may send some.
    let mut far = Box::new(Far::new(send, recv, Bytes::new()));
    let begun = if counted.is_some() {
        begin(shared, grant, open).await
    } else {
        Err(Error::Overloaded { what: "the node of the service is", limit })
    };
    let (instance, load) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            shared.metrics.call(Face::LinkUdp, Outcome::from(&error), began.elapsed());
            return raw::refuse(shared, &error, far.into_send()).await;
        }
    };
    let mut frame = BytesMut::with_capacity(Load::MAX_FRAME);
    load.put(&mut frame);
    let carried = async {
        if far.say(frame.freeze()).await.is_err() {
            return Ended::First;
        }
        carry(Ends::Far(far), Ends::Near(instance), shared.metrics.packets(), || {}).await
    };
    let mut draining = shared.draining.subscribe();
    let outcome = tokio::select! {
        ended = carried => Outcome::from(ended),
        // The next packet finds another instance.
        () = drained(&mut draining) => Outcome::Broken,
    };
    shared.metrics.call(Face::LinkUdp, outcome, began.elapsed());
}

/// The socket to the instance, and the load of it. A flow is no load: it is silent most of the time.
async fn begin(shared: &Shared, grant: &Credential, open: &Open) -> Result<(Near, Load), Error> {
    let (service, found) = asked_for(shared, grant, open, &Deadline::default())?;
    spoken(&service, &found, Form::Packets)?;
    let mut at = shared.take(&service, found.key)?;
    match Near::dial(shared, &found.address).await {
        Ok(near) => Ok((near, at.settle(Settled::Answered, None).into())),
        Err(error) => {
            if let Some(outcome) = outcome::of_error(&error) {
                at.settle(outcome, None);
            }
            Err(error)
        }
    }
}
