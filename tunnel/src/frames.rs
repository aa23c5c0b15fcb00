//! The control stream of a link, read and written once both ends are proven.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::BytesMut;
use proto::frame::{Frame, MAX_FRAME};
use tokio::sync::mpsc;

use crate::close::{Close, Gone};
use crate::control::Event;
use crate::endpoint::Endpoint;
use crate::greet::{self, READ};
use crate::link::Shared;
use crate::stream::StreamError;
use crate::transport::{Receiver, Sender};

/// Bytes of frames written at once.
const WRITE: usize = 64 * 1024;

/// Writes what is sent to the neighbour, in order, until the link is gone.
pub(crate) async fn write(mut send: Sender, mut frames: mpsc::Receiver<Frame>) {
    let mut out = BytesMut::new();
    while let Some(frame) = frames.recv().await {
        frame.encode(&mut out);
        // What waits already goes along.
        while out.len() < WRITE
            && let Ok(frame) = frames.try_recv()
        {
            frame.encode(&mut out);
        }
        let mut chunks = [out.split().freeze()];
        if poll_fn(|cx| send.poll_write(cx, &mut chunks)).await.is_err() {
            // The link is gone, and its task says so; or the peer stopped reading, which its
            // reader notices as well.
            return;
        }
    }
}

/// Reads what the neighbour sends, until the link is gone. A router that is slow to take events
/// slows the neighbour down: nothing piles up here.
pub(crate) async fn read(
    link: Arc<Shared>,
    endpoint: Arc<Endpoint>,
    mut recv: Receiver,
    mut rest: BytesMut,
) {
    let broken = loop {
        match Frame::decode(&mut rest, MAX_FRAME) {
            Ok(Some(frame)) => {
                if let Err(close) = take(&link, &endpoint, frame).await {
                    break close;
                }
                continue;
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(link = %link.id, peer = ?link.peer, %error, "broken frame");
                break Close::Protocol;
            }
        }
        match poll_fn(|cx| recv.poll_read(cx, READ)).await {
            Ok(Some(chunk)) => rest.extend_from_slice(&chunk),
            // The control stream ends with the link and not before.
            Ok(None) | Err(StreamError::Reset(_) | StreamError::Ended) => break Close::Protocol,
            // Its task knows why.
            Err(StreamError::Lost(_)) => return,
        }
    };
    link.close(broken);
}

async fn take(link: &Arc<Shared>, endpoint: &Endpoint, frame: Frame) -> Result<(), Close> {
    match frame {
        Frame::Hello(hello) => {
            let key = link.connection.peer();
            let now = (endpoint.config.limits.wall)();
            let peer = greet::judge(&hello, endpoint.config.network, &key, now)?;
            if peer.epoch != link.epoch {
                return Err(Close::Protocol);
            }
            tracing::debug!(link = %link.id, peer = ?link.peer, "the grant was renewed");
            link.renew(peer.credential);
        }
        Frame::Bye => {
            link.drain(Close::Unwanted);
            if link.announce_down() {
                let gone = Gone::ByPeer(Close::Unwanted);
                endpoint.tell(Event::Down(link.id, gone)).await;
            }
        }
        frame @ (Frame::Records(_) | Frame::Digest(_) | Frame::Summary(_) | Frame::Want(_)) => {
            // On a link for calls nobody said that records are wanted.
            if !link.neighbour {
                return Err(Close::Protocol);
            }
            endpoint.tell(Event::Frame(link.id, frame)).await;
        }
    }
    Ok(())
}
