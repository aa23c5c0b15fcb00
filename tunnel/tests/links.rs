//! What happens to links between neighbours: up, down, restarted, replaced.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that fails says so"
)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Ground, Net, Node, SOON, call, exchange, grounds, mirror, pattern};
use proto::frame::{Digest, Frame, MAX_BUCKETS};
use proto::{Epoch, LinkId, NodeId};
use tunnel::{Close, DialError, Event, Gone, State};

async fn up(node: &mut Node) -> (LinkId, NodeId) {
    node.event(|event| match event {
        Event::Up { link, node, .. } => Some((link, node)),
        _ => None,
    })
    .await
}

async fn down(node: &mut Node) -> (LinkId, Gone) {
    node.event(|event| match event {
        Event::Down(link, gone) => Some((link, gone)),
        _ => None,
    })
    .await
}

fn digest(value: u64) -> Frame {
    Frame::Digest(Digest { buckets: vec![value; MAX_BUCKETS] })
}

#[tokio::test]
async fn neighbours_hear_of_each_other_and_frames_pass_in_order() {
    for ground in grounds() {
        let net = Net::new(ground);
        let (mut near, mut far) = (net.member().await, net.member().await);
        near.control.dial(far.id);
        let (link, peer) = up(&mut near).await;
        assert_eq!(peer, far.id);
        assert_eq!(up(&mut far).await.1, near.id);
        for value in 0..15 {
            near.control.send(link, digest(value));
        }
        for value in 0..15 {
            let frame = far.event(|event| match event {
                Event::Frame(_, received) => Some(received.frame),
                _ => None,
            });
            assert_eq!(frame.await, digest(value));
        }
    }
}

#[tokio::test]
async fn a_seed_is_dialled_without_knowing_who_it_is() {
    for ground in grounds() {
        let net = Net::new(ground);
        let (mut near, far) = (net.member().await, net.member().await);
        near.control.dial_seed(vec![far.address]);
        assert_eq!(up(&mut near).await.1, far.id);
        near.control.dial_seed(vec![near.address]);
        let why = near.event(|event| match event {
            Event::SeedFailed(_, why) => Some(why),
            _ => None,
        });
        assert_eq!(why.await, DialError::Myself);
    }
}

#[tokio::test]
async fn who_is_found_is_named_and_one_link_is_enough() {
    for ground in grounds() {
        let net = Net::new(ground);
        let (mut near, far) = (net.member().await, net.member().await);
        assert_eq!(near.tunnel.find(vec![far.address]).await, Ok(far.id));
        assert_eq!(up(&mut near).await.1, far.id);
        assert_eq!(near.tunnel.find(vec![far.address]).await, Ok(far.id));
        assert_eq!(near.tunnel.links().len(), 1);
        assert_eq!(near.tunnel.find(vec![near.address]).await, Err(DialError::Myself));
    }
}

#[tokio::test]
async fn every_address_is_that_of_both_families() {
    for host in ["127.0.0.1", "[::1]"] {
        let net = Net::quic();
        let everywhere = || {
            let mut config = net.member_config();
            config.listen = vec!["[::]:0".parse().unwrap()];
            net.start(config)
        };
        let (near, far) = (everywhere().await, everywhere().await);
        let [six, four] = far.tunnel.local_addresses()[..] else { panic!("a socket a family") };
        assert_eq!((six.port(), six.is_ipv6(), four.is_ipv4()), (four.port(), true, true));
        let at = format!("{host}:{}", far.address.port()).parse().unwrap();
        assert_eq!(near.tunnel.find(vec![at]).await, Ok(far.id), "{at}");
    }
}

#[tokio::test]
async fn a_dial_that_fails_is_told() {
    for ground in grounds() {
        let net = Net::new(ground);
        let mut near = net.member().await;
        let nobody = tunnel::Keypair::generate().node();
        near.control.dial(nobody);
        let failed = near.event(|event| match event {
            Event::DialFailed(node, why) => Some((node, why)),
            _ => None,
        });
        assert_eq!(failed.await, (nobody, DialError::NoAddress));
    }
}

#[tokio::test]
async fn an_unwanted_neighbour_link_ends_at_both_ends_and_calls_still_work() {
    for ground in grounds() {
        let net = Net::new(ground);
        let (mut near, mut far) = (net.member().await, net.member().await);
        near.control.dial(far.id);
        let (link, _) = up(&mut near).await;
        up(&mut far).await;
        near.control.close(link);
        assert_eq!(down(&mut near).await, (link, Gone::Here(Close::Unwanted)));
        assert_eq!(down(&mut far).await.1, Gone::ByPeer(Close::Unwanted));
        tokio::spawn(mirror(far.incoming));
        assert_eq!(exchange(&near.tunnel, far.id, pattern(10)).await, pattern(10));
    }
}

#[tokio::test]
async fn two_nodes_that_dial_each_other_at_once_end_with_one_neighbour_link() {
    for ground in grounds() {
        let net = Net::new(ground);
        let (mut near, mut far) = (net.member().await, net.member().await);
        near.control.dial(far.id);
        far.control.dial(near.id);
        for node in [&mut near, &mut far] {
            let settled = async {
                loop {
                    let live =
                        |link: &tunnel::LinkInfo| link.neighbour && link.state == State::Live;
                    let links = node.tunnel.links();
                    if links.len() == 1 && links.iter().all(live) {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(SOON, settled).await.expect("one link stays");
        }
        let (of_near, of_far) = (near.tunnel.links(), far.tunnel.links());
        assert_ne!(of_near[0].dialled, of_far[0].dialled, "both kept the same one");
        // Neither router believes in a link that is no more.
        for node in [&mut near, &mut far] {
            let (mut live, link) = (Vec::new(), node.tunnel.links()[0].id);
            while let Ok(event) =
                tokio::time::timeout(Duration::from_millis(200), node.control.event()).await
            {
                match event {
                    Event::Up { link, .. } => live.push(link),
                    Event::Down(link, _) => live.retain(|up| *up != link),
                    _ => {}
                }
            }
            assert_eq!(live, [link]);
        }
    }
}

#[tokio::test]
async fn a_newer_life_of_a_node_ends_the_links_of_the_older_one() {
    for ground in grounds() {
        let net = Net::new(ground);
        let mut far = net.member().await;
        let mut config = net.member_config();
        config.epoch = Epoch(5);
        let mut old = net.start(config.clone()).await;
        old.control.dial(far.id);
        let (old_link, _) = up(&mut far).await;
        up(&mut old).await;
        config.epoch = Epoch(6);
        let new = net.start(config.clone()).await;
        new.control.dial(far.id);
        assert_eq!(down(&mut far).await, (old_link, Gone::Here(Close::Stale)));
        up(&mut far).await;
        assert_eq!(down(&mut old).await.1, Gone::ByPeer(Close::Stale));
        // And one that comes back from before is refused.
        config.epoch = Epoch(4);
        let late = net.start(config).await;
        let closed = late.tunnel.echo(far.id, pattern(10)).await;
        assert!(closed.is_err());
        assert_eq!(far.tunnel.links().iter().filter(|link| link.state == State::Live).count(), 1);
    }
}

#[test]
fn a_restarted_node_is_noticed_by_its_first_answer_and_called_again_at_once() {
    let outer = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    outer.block_on(async {
        let net = Arc::new(Net::quic());
        let mut near = net.member().await;
        let mut config = net.member_config();

        // A life of its own, killed with its runtime: nothing is said to the other end.
        let inner = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (starting, old) = (config.clone(), Arc::clone(&net));
        let first = inner
            .spawn(async move {
                let first = old.start(starting).await;
                tokio::spawn(mirror(first.incoming));
                (first.tunnel, first.control, first.address, first.id)
            })
            .await
            .unwrap();
        let (address, id) = (first.2, first.3);
        near.control.dial(id);
        let (link, _) = up(&mut near).await;
        assert_eq!(exchange(&near.tunnel, id, pattern(10)).await, pattern(10));
        // Its tasks are gone before its handles, so it can say nothing more.
        tokio::task::spawn_blocking(move || inner.shutdown_timeout(SOON)).await.unwrap();
        drop(first);

        config.listen = vec![address];
        config.epoch = Epoch(2);
        let second = net.start(config).await;
        tokio::spawn(mirror(second.incoming));
        let began = tokio::time::Instant::now();
        assert_eq!(down(&mut near).await, (link, Gone::Restarted));
        assert_eq!(exchange(&near.tunnel, id, pattern(10)).await, pattern(10));
        // Far from the idle timeout of thirty seconds, which it would be without the kept key.
        assert!(began.elapsed() < Duration::from_secs(10));
    });
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let net = Net::quic();
    let (near, mut config) = (net.member().await, net.member_config());
    config.listen = vec![near.address];
    let failed = tunnel::quic::Quic::bind(&config).unwrap_err().to_string();
    assert!(failed.contains(&near.address.to_string()), "{failed}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_neighbour_is_suspected_and_heard_again_by_the_router() {
    let hub = tunnel::memory::Hub::default();
    let net = Net::new(Ground::Memory(hub.clone()));
    let (mut near, far) = (net.member().await, net.member().await);
    near.control.dial(far.id);
    let (link, _) = up(&mut near).await;
    hub.silence(far.address, true);
    let suspected = near.event(|event| match event {
        Event::Suspected(link) => Some(link),
        _ => None,
    });
    assert_eq!(suspected.await, link);
    assert!(near.tunnel.open(far.id, &call()).await.is_err());
    hub.silence(far.address, false);
    let recovered = near.event(|event| match event {
        Event::Recovered(link, _) => Some(link),
        _ => None,
    });
    assert_eq!(recovered.await, link);
}
