//! Which records the router gets to see.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that fails says so"
)]

use proto::frame::Frame;
use proto::record::{Adjacency, Body, PathKind, Verified};
use proto::sign::Sign as _;
use proto::{Cost, Epoch, NetworkId, Record, Seq, Version};
use tunnel::Keypair;
use tunnel::door::{Door, Passed};

fn record(network: NetworkId, author: &Keypair, seq: u64) -> Record {
    let adjacency = Adjacency { cost: Cost::from_micros(7), path: PathKind::Direct };
    let body = Body::Adjacency(Keypair::from_seed([9; 32]).node(), adjacency);
    let version = Version { epoch: Epoch(1), seq: Seq(seq) };
    Verified::own(network, author, version, body).record().clone()
}

async fn passed(door: &Door, records: Vec<Record>) -> Vec<Record> {
    match door.check(Frame::Records(records)).await.passed {
        Passed::Records(passed) => passed.iter().map(|one| one.record().clone()).collect(),
        other => panic!("expected records, got {other:?}"),
    }
}

#[tokio::test]
async fn good_records_pass_in_order_and_are_checked_once() {
    let author = Keypair::generate();
    let network = NetworkId::of(&author.public_key());
    let door = Door::new(network);
    let records: Vec<_> = (0..50).map(|seq| record(network, &author, seq)).collect();
    for _ in 0..2 {
        assert_eq!(passed(&door, records.clone()).await, records);
    }
    assert_eq!((door.counts().passed.get(), door.counts().known.get()), (100, 50));
}

#[tokio::test]
async fn records_of_another_network_are_turned_away_and_the_others_pass() {
    let author = Keypair::generate();
    let network = NetworkId::of(&author.public_key());
    let elsewhere = NetworkId::of(&Keypair::generate().public_key());
    let door = Door::new(network);
    let (good, foreign) = (record(network, &author, 1), record(elsewhere, &author, 2));
    assert_eq!(passed(&door, vec![foreign, good.clone()]).await, [good]);
    assert_eq!(door.counts().rejected.get(), 1);
}

#[tokio::test]
async fn a_record_altered_after_it_was_known_is_turned_away() {
    let author = Keypair::generate();
    let network = NetworkId::of(&author.public_key());
    let door = Door::new(network);
    let good = record(network, &author, 1);
    assert_eq!(passed(&door, vec![good.clone()]).await.len(), 1);
    for at in 0..good.bytes().len() {
        let mut bytes = good.bytes().to_vec();
        bytes[at] ^= 1;
        if let Ok(altered) = Record::decode(bytes.into()) {
            assert_eq!(passed(&door, vec![altered]).await, [], "byte {at}");
        }
    }
}
