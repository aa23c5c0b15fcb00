//! The stream on which one end of a link tells the other how far it may go.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;

use bytes::BytesMut;
use proto::credit::Credit;
use proto::open::{Open, OpenKind};

use crate::close::Close;
use crate::link::Shared;
use crate::stream::{Stream, StreamError};

/// Bytes read at once.
const READ: usize = 16 * 1024;

/// Opens the stream and tells every grant there is, until the link is gone.
pub(crate) async fn tell(link: Arc<Shared>) {
    let gone = link.connection.closed();
    tokio::select! {
        _ = gone => {}
        () = tell_all(&link) => {}
    }
}

async fn tell_all(link: &Shared) {
    // Kept, for letting it go would stop what the other end never says.
    let Ok((mut send, _recv)) = link.connection.open().await else { return };
    let mut out = BytesMut::new();
    Open::new(OpenKind::Credit).encode(&mut out);
    loop {
        let grants: BTreeMap<u64, u64> = std::mem::take(&mut *link.credits.grants.lock());
        for (stream, total) in grants {
            Credit { stream, total }.encode(&mut out);
        }
        if !out.is_empty() {
            let mut chunks = [out.split().freeze()];
            if poll_fn(|cx| send.poll_write(cx, &mut chunks)).await.is_err() {
                return;
            }
        }
        link.credits.told.notified().await;
    }
}

/// Takes the grants of the other end, until the link is gone.
pub(crate) async fn listen(link: Arc<Shared>, mut stream: Stream) {
    // It lives as long as the link, and is nobody's call.
    stream.uncount();
    let mut come = BytesMut::new();
    loop {
        match stream.recv.read(READ).await {
            Ok(Some(chunk)) => come.extend_from_slice(&chunk),
            // It ends with the link; one that ends before leaves senders waiting for ever.
            Ok(None) | Err(StreamError::Reset(_) | StreamError::Ended) => {
                return link.close(Close::Protocol);
            }
            // Its task knows why.
            Err(StreamError::Lost(_)) => return,
        }
        while let Some(Credit { stream, total }) = Credit::take(&mut come) {
            let sender = link.credits.senders.lock().get(&stream).cloned();
            if let Some(sender) = sender {
                sender.raise(total);
            }
        }
    }
}
