//! What a real node makes of clients of etcd in numbers: registrations by the thousands at once, leases that
//! run out, and a second node that sees all of it; and of a store whose node is killed.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

#[path = "daemon_support/mod.rs"]
mod support;

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use http::uri::PathAndQuery;
use prost::Message;
use proto::micro::etcd as pb;
use proto::micro::store;
use support::{Node, User, soon};
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// Registrations of the burst: so many services with so many instances each, the most of both that a node
/// and a record are made for.
const SERVICES: usize = 500;
const INSTANCES: usize = 40;
/// Calls of the burst at a time.
const AT_ONCE: usize = 128;

async fn connect(node: &Node<'_>) -> Channel {
    let at = format!("http://{}", node.proxy());
    Endpoint::from_shared(at).unwrap().connect().await.unwrap()
}

async fn ask<A: Message + Default + Send + Sync + 'static>(
    channel: &Channel,
    path: &'static str,
    message: impl Message + Default + 'static,
) -> Result<A, tonic::Status> {
    let mut client = tonic::client::Grpc::new(channel.clone()).max_decoding_message_size(64 << 20);
    client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static(path);
    let request = tonic::Request::new(message);
    client.unary(request, path, ProstCodec::default()).await.map(tonic::Response::into_inner)
}

async fn grant(channel: &Channel, ttl: i64) -> i64 {
    let ask_for = pb::LeaseGrantRequest { ttl, id: 0 };
    let granted: pb::LeaseGrantResponse =
        ask(channel, "/etcdserverpb.Lease/LeaseGrant", ask_for).await.unwrap();
    granted.id
}

async fn put(channel: &Channel, service: &str, id: &str, lease: i64) -> Result<i64, tonic::Status> {
    let value = format!(
        r#"{{"name":"{service}","version":"latest","nodes":[{{"id":"{id}","address":"10.9.0.7:4000","metadata":{{"protocol":"grpc"}}}}]}}"#
    );
    let key = format!("/micro/registry/{service}/{id}").into();
    let put = pb::PutRequest { key, value: value.into(), lease, ..Default::default() };
    let answer: pb::PutResponse = ask(channel, "/etcdserverpb.KV/Put", put).await?;
    Ok(answer.header.unwrap().revision)
}

async fn count(channel: &Channel) -> i64 {
    let all = pb::RangeRequest {
        key: "/micro/registry/".into(),
        range_end: "/micro/registry0".into(),
        count_only: true,
        ..Default::default()
    };
    let answer: pb::RangeResponse = ask(channel, "/etcdserverpb.KV/Range", all).await.unwrap();
    answer.count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_registrations_in_a_burst_are_all_there_and_go_with_their_lease() {
    let user = User::new();
    let first = user.up("a", &[]);
    let ticket = first.invite(&["--service", "*"]);
    let second = user.up("b", &["--join", &ticket]);
    let (here, there) = (connect(&first).await, connect(&second).await);
    let lease = grant(&here, 3600).await;
    let all = (0..SERVICES).flat_map(|s| (0..INSTANCES).map(move |i| (s, i)));
    let put_one = |(s, i): (usize, usize)| {
        let here = here.clone();
        async move { put(&here, &format!("burst-{s}"), &format!("i-{i}"), lease).await }
    };
    let put_all = stream::iter(all).map(put_one).buffer_unordered(AT_ONCE);
    let answers: Vec<_> = put_all.collect().await;
    let refused: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert!(refused.is_empty(), "{} refused: {:?}", refused.len(), refused.first());
    let everything = i64::try_from(SERVICES * INSTANCES).unwrap();
    assert_eq!(count(&here).await, everything);
    // It answers others meanwhile, and the other node has all of it soon.
    assert!(first.status()["network"].is_object() || !first.status().is_null());
    let runtime = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| {
        soon("the other node sees all of them", || runtime.block_on(count(&there)) == everything);
    });
    let _: pb::LeaseRevokeResponse =
        ask(&here, "/etcdserverpb.Lease/LeaseRevoke", pb::LeaseRevokeRequest { id: lease })
            .await
            .unwrap();
    assert_eq!(count(&here).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_runs_out_takes_its_keys_along_on_every_node() {
    let user = User::new();
    let first = user.up("a", &[]);
    let ticket = first.invite(&["--service", "*"]);
    let second = user.up("b", &["--join", &ticket]);
    let (here, there) = (connect(&first).await, connect(&second).await);
    let lease = grant(&here, 2).await;
    put(&here, "short", "s-1", lease).await.unwrap();
    put(&here, "long", "l-1", grant(&here, 3600).await).await.unwrap();
    let runtime = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| {
        for channel in [&here, &there] {
            soon("both are seen", || runtime.block_on(count(channel)) >= 1);
            soon("one is left", || runtime.block_on(count(channel)) == 1);
        }
    });
    let lost = put(&here, "short", "s-1", lease).await.unwrap_err();
    assert_eq!(lost.message(), "etcdserver: requested lease not found");
}

const WRITE: &str = "/go.micro.store.Store/Write";
const READ: &str = "/store.Store/Read";

fn record(key: &str, value: Vec<u8>) -> store::WriteRequest {
    let record = store::Record { key: key.into(), value: value.into(), ..Default::default() };
    store::WriteRequest { record: Some(record), options: None }
}

/// Writes from many callers until the node is killed under them; whatever was answered is there after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_loses_nothing_that_was_acknowledged() {
    let user = User::new();
    let node = user.up("a", &[]);
    let channel = connect(&node).await;
    let (told, mut acknowledged) = tokio::sync::mpsc::unbounded_channel();
    let writers: Vec<_> = (0..16)
        .map(|writer| {
            let (channel, told) = (channel.clone(), told.clone());
            tokio::spawn(async move {
                for n in 0.. {
                    let key = format!("w{writer}/{n}");
                    let value = key.repeat(100).into_bytes();
                    let written = ask::<store::WriteResponse>(&channel, WRITE, record(&key, value));
                    match written.await {
                        Ok(_) => told.send(key).unwrap(),
                        Err(_) => return,
                    }
                }
            })
        })
        .collect();
    let mut kept = Vec::new();
    while kept.len() < 500 {
        kept.push(acknowledged.recv().await.unwrap());
    }
    node.kill();
    for writer in writers {
        tokio::time::timeout(Duration::from_secs(30), writer).await.unwrap().unwrap();
    }
    drop(told);
    while let Some(key) = acknowledged.recv().await {
        kept.push(key);
    }
    let node = user.up("a", &[]);
    let channel = connect(&node).await;
    for key in &kept {
        let read = store::ReadRequest { key: key.clone(), options: None };
        let found: store::ReadResponse = ask(&channel, READ, read).await.unwrap();
        assert_eq!(found.records[0].value, key.repeat(100).into_bytes(), "{key}");
    }
}

#[tokio::test]
async fn a_store_in_memory_makes_no_file_and_refuses_what_does_not_fit() {
    let user = User::new();
    std::fs::create_dir_all(user.path("config/micro")).unwrap();
    let file = user.path("config/micro/micro.toml");
    std::fs::write(&file, "[store]\nbackend = \"memory\"\n[network]\nname = \"m\"\n").unwrap();
    let node = user.up("a", &[]);
    let channel = connect(&node).await;
    let large = vec![b'x'; 1_000_000];
    let mut written = 0;
    let refused = loop {
        let key = written.to_string();
        match ask::<store::WriteResponse>(&channel, WRITE, record(&key, large.clone())).await {
            Ok(_) => written += 1,
            Err(refused) => break refused,
        }
    };
    assert!(refused.message().contains("Insufficient Storage") && written > 50, "{refused:?}");
    assert!(!node.state("m").join("store").exists());
    let read = store::ReadRequest {
        key: String::new(),
        options: Some(store::ReadOptions { prefix: true, ..Default::default() }),
    };
    let too_much = ask::<store::ReadResponse>(&channel, READ, read).await.unwrap_err();
    assert!(too_much.message().contains("limit"), "{too_much:?}");
    let absent = store::ReadRequest { key: "none".into(), options: None };
    let absent = ask::<store::ReadResponse>(&channel, READ, absent).await.unwrap_err();
    let says = absent.message().to_owned();
    assert!(says.contains("\"id\":\"store.Store.Read\"") && says.contains("404"), "{says}");
}
