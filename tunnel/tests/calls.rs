//! Calls between two nodes, over QUIC and over memory alike.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that fails says so"
)]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Ground, Net, SOON, call, exchange, grounds, mirror, pattern, read_all};
use proto::credit::INITIAL;
use proto::fault::Code;
use proto::open::OpenKind;
use tunnel::{DialError, OpenError, State, StreamError};

#[tokio::test]
async fn a_call_carries_its_open_and_its_bytes_both_ways() {
    for ground in grounds() {
        let net = Net::new(ground);
        let (near, mut far) = (net.member().await, net.member().await);
        let mut stream = near.tunnel.open(far.id, &call()).await.unwrap();
        stream
            .send
            .write(&mut [Bytes::from_static(b"hel"), Bytes::from_static(b"lo")])
            .await
            .unwrap();
        stream.send.finish();

        let mut arrival = far.incoming.accept().await.unwrap();
        assert_eq!(arrival.caller, near.id);
        assert_eq!(arrival.open, call());
        assert_eq!(arrival.grant.node(), near.id);
        assert_eq!(read_all(&mut arrival.stream.recv).await, "hello");
        arrival.stream.send.write(&mut [Bytes::from_static(b"you too")]).await.unwrap();
        arrival.stream.send.finish();
        assert_eq!(read_all(&mut stream.recv).await, "you too");
    }
}

#[tokio::test]
async fn many_calls_at_once_share_one_link() {
    for ground in grounds() {
        let net = Net::new(ground);
        let (near, far) = (net.member().await, net.member().await);
        tokio::spawn(mirror(far.incoming));
        let calls = (0..200).map(|at| exchange(&near.tunnel, far.id, pattern(at * 7)));
        let answers = futures_util::future::join_all(calls).await;
        for (at, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer, pattern(at * 7));
        }
        assert_eq!(near.tunnel.links().len(), 1);
        assert_eq!(near.tunnel.counters().dials.get(), 1);
    }
}

#[tokio::test]
async fn more_calls_than_a_peer_allows_at_once_wait_for_their_turn() {
    for ground in grounds() {
        let net = Net::new(ground);
        let mut config = net.member_config();
        config.limits.streams = 8;
        let (near, far) = (net.member().await, net.start(config).await);
        tokio::spawn(mirror(far.incoming));
        let calls = (0..100).map(|at| exchange(&near.tunnel, far.id, pattern(at)));
        let answers = futures_util::future::join_all(calls).await;
        assert!(answers.iter().enumerate().all(|(at, answer)| *answer == pattern(at)));
    }
}

#[tokio::test]
async fn four_mebibytes_pass_both_ways_unchanged() {
    for ground in grounds() {
        let net = Net::new(ground);
        let (near, far) = (net.member().await, net.member().await);
        tokio::spawn(mirror(far.incoming));
        let payload = pattern(4 << 20);
        assert_eq!(exchange(&near.tunnel, far.id, payload.clone()).await, payload);
    }
}

#[tokio::test]
async fn a_slow_reader_stops_the_writer_at_its_windows() {
    for ground in grounds() {
        let net = Net::new(ground);
        let (near, mut far) = (net.member().await, net.member().await);
        let mut stream = near.tunnel.open(far.id, &call()).await.unwrap();
        let chunk = pattern(64 * 1024);
        let mut written = 0;
        // Nothing is read: the writes end with the credit that a stream begins with.
        while futures_util::FutureExt::now_or_never(stream.send.write(&mut [chunk.clone()]))
            .is_some()
        {
            written += chunk.len();
            assert!(written <= INITIAL as usize, "{written} bytes were taken");
        }
        let mut arrival = far.incoming.accept().await.unwrap();
        let first = arrival.stream.recv.read(1024).await.unwrap().unwrap();
        assert_eq!(first, chunk[..first.len()]);
        // Other calls on the same link are not held up.
        let mut other = near.tunnel.open(far.id, &call()).await.unwrap();
        other.send.write(&mut [Bytes::from_static(b"hurry")]).await.unwrap();
        other.send.finish();
        let mut arrival = far.incoming.accept().await.unwrap();
        assert_eq!(read_all(&mut arrival.stream.recv).await, "hurry");
    }
}

#[tokio::test]
async fn streams_that_are_not_read_any_more_leave_the_others_their_rate() {
    for ground in grounds() {
        let net = Net::new(ground);
        let (near, mut far) = (net.member().await, net.member().await);
        let chunk = pattern(64 * 1024);
        let mut stalled = Vec::new();
        // Each has been read for a while, so that its window has grown, and then no more.
        for _ in 0..40 {
            let mut stream = near.tunnel.open(far.id, &call()).await.unwrap();
            let chunk = chunk.clone();
            let feed = tokio::spawn(async move {
                while stream.send.write(&mut [chunk.clone()]).await.is_ok() {}
                stream
            });
            let mut arrival = far.incoming.accept().await.unwrap();
            let mut read = 0;
            while read < 4 << 20 {
                read += arrival.stream.recv.read(64 * 1024).await.unwrap().unwrap().len();
            }
            stalled.push((feed, arrival));
        }
        tokio::spawn(mirror(far.incoming));
        let payload = pattern(4 << 20);
        for _ in 0..4 {
            let moved = exchange(&near.tunnel, far.id, payload.clone());
            let moved = tokio::time::timeout(SOON, moved).await.expect("it is not held up");
            assert_eq!(moved, payload);
        }
        assert_eq!(near.tunnel.links().len(), 1);
        for (feed, _) in &stalled {
            assert!(!feed.is_finished());
            feed.abort();
        }
    }
}

#[tokio::test]
async fn a_writer_that_waits_for_credit_is_told_that_nothing_more_is_wanted() {
    for ground in grounds() {
        let net = Net::new(ground);
        let (near, mut far) = (net.member().await, net.member().await);
        let mut stream = near.tunnel.open(far.id, &call()).await.unwrap();
        let feed =
            tokio::spawn(
                async move { stream.send.write(&mut [pattern(INITIAL as usize + 1)]).await },
            );
        let mut arrival = far.incoming.accept().await.unwrap();
        assert!(!feed.is_finished());
        arrival.stream.recv.stop(Code::TooMuch);
        assert_eq!(feed.await.unwrap(), Err(StreamError::Reset(Code::TooMuch)));
    }
}

#[tokio::test]
async fn codes_of_a_reset_and_of_a_stop_reach_the_other_end() {
    for ground in grounds() {
        let net = Net::new(ground);
        let (near, mut far) = (net.member().await, net.member().await);
        let mut stream = near.tunnel.open(far.id, &call()).await.unwrap();
        stream.send.write(&mut [Bytes::from_static(b"x")]).await.unwrap();
        let mut arrival = far.incoming.accept().await.unwrap();
        assert_eq!(arrival.stream.recv.read(10).await.unwrap().unwrap(), "x");

        stream.send.reset(Code::Deadline);
        let read = arrival.stream.recv.read(10).await;
        assert_eq!(read, Err(StreamError::Reset(Code::Deadline)));

        stream.recv.stop(Code::TooMuch);
        assert_eq!(arrival.stream.send.stopped().await, Code::TooMuch);
        let written = arrival.stream.send.write(&mut [pattern(10)]).await;
        assert_eq!(written, Err(StreamError::Reset(Code::TooMuch)));
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_is_cancelled_at_the_other_end() {
    for ground in grounds() {
        let net = Net::new(ground);
        let (near, mut far) = (net.member().await, net.member().await);
        let mut stream = near.tunnel.open(far.id, &call()).await.unwrap();
        stream.send.write(&mut [Bytes::from_static(b"x")]).await.unwrap();
        let mut arrival = far.incoming.accept().await.unwrap();
        assert_eq!(arrival.stream.recv.read(10).await.unwrap().unwrap(), "x");
        drop(stream);
        assert_eq!(arrival.stream.send.stopped().await, Code::Cancelled);
        let read = arrival.stream.recv.read(10).await;
        assert_eq!(read, Err(StreamError::Reset(Code::Cancelled)));
    }
}

#[tokio::test]
async fn the_other_side_may_speak_first() {
    for ground in grounds() {
        let net = Net::new(ground);
        let (near, mut far) = (net.member().await, net.member().await);
        let mut stream = near.tunnel.open(far.id, &call()).await.unwrap();
        stream.send.flush().await.unwrap();
        let mut arrival = far.incoming.accept().await.unwrap();
        arrival.stream.send.write(&mut [Bytes::from_static(b"220 ready")]).await.unwrap();
        assert_eq!(stream.recv.read(100).await.unwrap().unwrap(), "220 ready");
        stream.send.finish();
        assert_eq!(arrival.stream.recv.read(100).await, Ok(None));
    }
}

#[tokio::test]
async fn a_call_without_a_body_still_arrives() {
    for ground in grounds() {
        let net = Net::new(ground);
        let (near, mut far) = (net.member().await, net.member().await);
        let mut stream = near.tunnel.open(far.id, &call()).await.unwrap();
        stream.send.finish();
        let mut arrival = far.incoming.accept().await.unwrap();
        assert_eq!(arrival.open.kind, OpenKind::Bytes);
        assert_eq!(arrival.stream.recv.read(100).await, Ok(None));
    }
}

#[tokio::test]
async fn an_echo_comes_back() {
    for ground in grounds() {
        let net = Net::new(ground);
        let (near, far) = (net.member().await, net.member().await);
        near.tunnel.echo(far.id, pattern(64)).await.unwrap();
    }
}

#[tokio::test]
async fn a_node_without_an_address_is_refused_at_once_and_the_next_call_too() {
    for ground in grounds() {
        let net = Net::new(ground);
        let near = net.member().await;
        let nobody = tunnel::Keypair::generate().node();
        for _ in 0..2 {
            let opened = near.tunnel.open(nobody, &call()).await.map(drop);
            assert_eq!(opened, Err(OpenError::Unreachable(DialError::NoAddress)));
        }
        assert_eq!(near.tunnel.counters().dials.get(), 1);
    }
}

#[tokio::test]
async fn another_node_at_the_address_is_not_called() {
    for ground in grounds() {
        let net = Net::new(ground);
        let (near, far) = (net.member().await, net.member().await);
        let meant = tunnel::Keypair::generate().node();
        net.addresses.lock().unwrap().insert(meant, vec![far.address]);
        let opened = near.tunnel.open(meant, &call()).await.map(drop);
        assert_eq!(opened, Err(OpenError::Unreachable(DialError::WrongNode)));
    }
}

#[tokio::test]
async fn a_node_that_closes_refuses_new_calls_and_finishes_those_there_are() {
    for ground in grounds() {
        let net = Net::new(ground);
        let (near, mut far) = (net.member().await, net.member().await);
        let mut stream = near.tunnel.open(far.id, &call()).await.unwrap();
        stream.send.write(&mut [Bytes::from_static(b"x")]).await.unwrap();
        let mut arrival = far.incoming.accept().await.unwrap();

        let closing = tokio::spawn(async move { far.tunnel.close(SOON).await });
        arrival.stream.send.write(&mut [Bytes::from_static(b"done")]).await.unwrap();
        arrival.stream.send.finish();
        stream.send.finish();
        assert_eq!(read_all(&mut stream.recv).await, "done");
        drop((stream, arrival));
        tokio::time::timeout(SOON, closing).await.unwrap().unwrap();
        assert!(near.tunnel.open(far.id, &call()).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_suspected_and_calls_to_it_are_refused_until_it_is_heard() {
    let hub = tunnel::memory::Hub::default();
    let net = Net::new(Ground::Memory(hub.clone()));
    let (near, far) = (net.member().await, net.member().await);
    tokio::spawn(mirror(far.incoming));
    let _open = near.tunnel.open(far.id, &call()).await.unwrap();

    hub.silence(far.address, true);
    // Nothing is sent but pings: the next of them, and the time for it to be missed.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(near.tunnel.links()[0].state, State::Suspected);
    let opened = near.tunnel.open(far.id, &call()).await.map(drop);
    assert_eq!(opened, Err(OpenError::Suspected));

    hub.silence(far.address, false);
    tokio::time::sleep(Duration::from_millis(301)).await;
    assert_eq!(near.tunnel.links()[0].state, State::Live);
    assert!(near.tunnel.open(far.id, &call()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_link_that_nobody_calls_on_is_closed_and_opened_again_when_needed() {
    let net = Net::new(Ground::Memory(tunnel::memory::Hub::default()));
    let (near, far) = (net.member().await, net.member().await);
    tokio::spawn(mirror(far.incoming));
    exchange(&near.tunnel, far.id, pattern(10)).await;
    tokio::time::sleep(Duration::from_secs(55)).await;
    assert_eq!(near.tunnel.links().len(), 1);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(near.tunnel.links().len(), 0);
    assert_eq!(far.tunnel.links().len(), 0);
    assert_eq!(exchange(&near.tunnel, far.id, pattern(10)).await, pattern(10));
}

#[tokio::test]
async fn a_peer_that_opens_many_streams_is_given_room_for_them() {
    for ground in grounds() {
        let net = Net::new(ground);
        let (near, mut far) = (net.member().await, net.member().await);
        let (mut streams, mut arrivals) = (Vec::new(), Vec::new());
        // Far more than a link begins with, all open at once.
        for _ in 0..1000 {
            let mut stream = near.tunnel.open(far.id, &call()).await.unwrap();
            stream.send.write(&mut [Bytes::from_static(b"x")]).await.unwrap();
            stream.send.finish();
            streams.push(stream);
            // The request is read whole, the answer never ends: one half is left of each.
            let mut arrival = far.incoming.accept().await.unwrap();
            assert_eq!(read_all(&mut arrival.stream.recv).await, "x");
            arrivals.push(arrival.stream.send);
        }
        assert_eq!(near.tunnel.links().len(), 1);
        assert_eq!(near.tunnel.counters().opens_refused.get(), 0);
    }
}
