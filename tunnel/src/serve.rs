//! The streams that a node answers by itself.

use std::sync::Arc;

use proto::fault::Code;
use proto::join::{Answer, Refusal};

use crate::endpoint::Endpoint;
use crate::link::{Shared, refuse};
use crate::stream::{Stream, read_to_end};

/// Bytes echoed at once.
const ECHO: usize = 64 * 1024;

/// Sends back what comes.
pub(crate) async fn echo(mut stream: Stream) {
    while let Ok(Some(chunk)) = stream.recv.read(ECHO).await {
        if stream.send.write(&mut [chunk]).await.is_err() {
            return;
        }
    }
    stream.send.finish();
}

/// Answers a member who asks for a newer grant.
pub(crate) async fn renew(link: Arc<Shared>, endpoint: Arc<Endpoint>, mut stream: Stream) {
    if read_to_end(&mut stream.recv, 0).await.is_err() {
        return refuse(stream, Code::Protocol);
    }
    let answer = match endpoint.config.desk.clone() {
        Some(desk) => {
            let (held, now) = (link.credential.load_full(), (endpoint.config.limits.wall)());
            // It waits for the disk.
            tokio::task::spawn_blocking(move || desk.renew(&held, now))
                .await
                .unwrap_or(Answer::Refused(Refusal::Unavailable))
        }
        None => Answer::Refused(Refusal::NotAnIssuer),
    };
    if matches!(answer, Answer::Granted(_)) {
        endpoint.counters.renewals.add();
    }
    if stream.send.write(&mut [answer.encode()]).await.is_ok() {
        stream.send.finish();
    }
}
