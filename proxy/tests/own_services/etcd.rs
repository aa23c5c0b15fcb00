//! The face of etcd: what go-micro's registry and `etcdctl` ask of it, and what nobody should.

use bytes::Bytes;
use prost::Message;
use proto::micro::etcd as pb;
use proto::micro::etcd::event::EventType;
use proto::micro::etcd::watch_request::RequestUnion;
use proxy::RegistrarError;

use crate::client::{Call, Client};
use crate::node::{Node, id, registration};

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const DELETE: &str = "/etcdserverpb.KV/DeleteRange";
const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
const ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const LEFT: &str = "/etcdserverpb.Lease/LeaseTimeToLive";
const WATCH: &str = "/etcdserverpb.Watch/Watch";

fn value(service: &str, id: &str, address: &str) -> Bytes {
    format!(
        r#"{{"name":"{service}","version":"latest","metadata":null,"endpoints":null,"nodes":[{{"id":"{id}","address":"{address}","metadata":{{"protocol":"mucp"}}}}]}}"#
    )
    .into()
}

fn key(service: &str, id: &str) -> Bytes {
    format!("/micro/registry/{service}/{id}").into()
}

fn put_request(service: &str, id: &str, lease: i64) -> pb::PutRequest {
    let value = value(service, id, "10.0.0.7:4000");
    pb::PutRequest { key: key(service, id), value, lease, ..Default::default() }
}

async fn put(client: &Client, service: &str, id: &str, lease: i64) -> i64 {
    let put: pb::PutResponse = client.unary(PUT, put_request(service, id, lease)).await.unwrap();
    put.header.unwrap().revision
}

async fn grant(client: &Client, ttl: i64) -> i64 {
    let ask = pb::LeaseGrantRequest { ttl, id: 0 };
    let granted: pb::LeaseGrantResponse = client.unary(GRANT, ask).await.unwrap();
    assert_eq!((granted.ttl, granted.error.as_str()), (ttl, ""));
    granted.id
}

/// Everything, as go-micro lists it.
fn all() -> pb::RangeRequest {
    pb::RangeRequest {
        key: "/micro/registry/".into(),
        range_end: "/micro/registry0".into(),
        serializable: true,
        ..Default::default()
    }
}

async fn read(client: &Client) -> pb::RangeResponse {
    client.unary(RANGE, all()).await.unwrap()
}

async fn refused(client: &Client, path: &str, ask: impl Message) -> (String, String) {
    let end = client.unary::<pb::PutResponse>(path, ask).await.unwrap_err();
    let text = |name| end[name].to_str().unwrap().to_owned();
    (text("grpc-status"), text("grpc-message"))
}

fn watch(create: pb::WatchCreateRequest) -> Vec<u8> {
    let request_union = Some(RequestUnion::CreateRequest(create));
    pb::WatchRequest { request_union }.encode_to_vec()
}

fn of_service(service: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: format!("/micro/registry/{service}/").into(),
        range_end: format!("/micro/registry/{service}0").into(),
        prev_kv: true,
        ..Default::default()
    }
}

async fn watching(client: &Client, creates: &[pb::WatchCreateRequest]) -> Call {
    let mut call = client.open(WATCH, &[]).await;
    for (at, create) in (0..).zip(creates) {
        call.send(&watch(create.clone()));
        let created: pb::WatchResponse = call.next().await;
        assert!(created.created && !created.canceled && created.watch_id == at, "{created:?}");
    }
    call
}

/// Watch, kind, key, value before.
fn told(answer: pb::WatchResponse) -> Vec<(i64, &'static str, String, bool)> {
    assert!(answer.header.unwrap().revision > 0);
    let event = |event: pb::Event| {
        let kv = event.kv.as_ref().unwrap();
        let kind = match event.r#type() {
            EventType::Delete => "delete",
            EventType::Put if kv.create_revision == kv.mod_revision => "create",
            EventType::Put => "update",
        };
        let key = String::from_utf8(kv.key.to_vec()).unwrap();
        (answer.watch_id, kind, key.replace("/micro/registry/", ""), event.prev_kv.is_some())
    };
    answer.events.into_iter().map(event).collect()
}

fn one(
    watch: i64,
    kind: &'static str,
    key: &str,
    before: bool,
) -> Vec<(i64, &'static str, String, bool)> {
    vec![(watch, kind, key.to_owned(), before)]
}

#[tokio::test]
async fn what_is_put_is_registered_and_read_back_as_it_was_written() {
    let node = Node::start().await;
    let client = node.client().await;
    let lease = grant(&client, 60).await;
    let before = read(&client).await;
    assert_eq!(before.count, 0);
    let revision = put(&client, "greeter", "g-1", lease).await;
    assert!(revision > before.header.unwrap().revision);
    let after = read(&client).await;
    let kv = &after.kvs[0];
    assert_eq!(
        (&kv.key, &kv.value),
        (&key("greeter", "g-1"), &put_request("greeter", "g-1", 0).value)
    );
    assert_eq!((kv.lease, kv.version, kv.create_revision), (lease, 1, kv.mod_revision));
    let routes = node.desk.routes.load_full();
    let instance = &routes.service("greeter").unwrap().instances[0];
    assert_eq!((&*instance.id, &*instance.address), ("g-1", "10.0.0.7:4000"));
    assert_eq!(instance.metadata.get("protocol"), Some("mucp"));
    // The same again is news to etcd.
    let again = put(&client, "greeter", "g-1", lease).await;
    assert_eq!((again, read(&client).await.kvs[0].version), (revision + 1, 2));
    let gone: pb::DeleteRangeResponse = client
        .unary(
            DELETE,
            pb::DeleteRangeRequest {
                key: key("greeter", "g-1"),
                prev_kv: true,
                ..Default::default()
            },
        )
        .await
        .unwrap();
    assert_eq!((gone.deleted, gone.prev_kvs.len()), (1, 1));
    assert!(node.desk.routes.load().service("greeter").is_none());
    assert_eq!(read(&client).await.count, 0);
}

#[tokio::test]
async fn services_of_other_nodes_are_keys_that_only_they_withdraw() {
    let node = Node::start().await;
    let client = node.client().await;
    node.desk.remote(2, "greeter", "a", Some(10));
    node.desk.remote(3, "greeter", "a", Some(5));
    node.desk.remote(4, "greeter", "far", None);
    let found = read(&client).await;
    let keys: Vec<_> = found.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key)).collect();
    assert_eq!(keys.len(), 2, "what cannot be reached is not shown: {keys:?}");
    assert_eq!(keys[0], "/micro/registry/greeter/a");
    assert!(keys[1].starts_with("/micro/registry/greeter/a-"), "one id on two nodes: {keys:?}");
    let json: serde_json::Value = serde_json::from_slice(&found.kvs[0].value).unwrap();
    assert_eq!(
        (&json["name"], &json["nodes"][0]["address"]),
        (&"greeter".into(), &"10.9.0.7:4000".into())
    );
    assert_eq!(json["nodes"][0]["metadata"]["protocol"], "grpc");
    put(&client, "own", "o-1", 0).await;
    let everything = pb::DeleteRangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        ..Default::default()
    };
    let (status, why) = refused(&client, DELETE, everything).await;
    assert!(status == "7" && why.contains("offered by another node"), "{status} {why}");
    assert_eq!(read(&client).await.count, 3, "and nothing was withdrawn");
}

#[tokio::test]
async fn watches_share_a_stream_and_each_is_told_its_own() {
    let node = Node::start().await;
    let client = node.client().await;
    let only_deletes =
        pb::WatchCreateRequest { filters: vec![0], prev_kv: false, ..of_service("b") };
    let mut call = watching(&client, &[of_service("a"), of_service("b"), only_deletes]).await;
    put(&client, "a", "1", 0).await;
    assert_eq!(told(call.next().await), one(0, "create", "a/1", false));
    put(&client, "a", "1", 0).await;
    assert_eq!(told(call.next().await), one(0, "update", "a/1", true));
    node.desk.remote(2, "b", "far", Some(7));
    assert_eq!(told(call.next().await), one(1, "create", "b/far", false));
    node.desk.gone(2, "b", "far");
    let mut both = [told(call.next().await), told(call.next().await)];
    both.sort();
    assert_eq!(both, [one(1, "delete", "b/far", true), one(2, "delete", "b/far", false)]);
    let request_union = Some(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 1 }));
    call.send(&pb::WatchRequest { request_union }.encode_to_vec());
    let canceled: pb::WatchResponse = call.next().await;
    assert!(canceled.canceled && canceled.watch_id == 1);
    let progress = Some(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
    call.send(&pb::WatchRequest { request_union: progress }.encode_to_vec());
    let progress: pb::WatchResponse = call.next().await;
    assert_eq!((progress.watch_id, progress.events.len()), (-1, 0));
    call.half_close();
    assert_eq!(call.end().await["grpc-status"], "0");
}

#[tokio::test]
async fn a_watch_begins_in_the_past_as_far_as_it_is_known() {
    let node = Node::start().await;
    let client = node.client().await;
    let first = put(&client, "a", "1", 0).await;
    put(&client, "a", "2", 0).await;
    let since = |start_revision| pb::WatchCreateRequest { start_revision, ..of_service("a") };
    let mut call = watching(&client, &[since(first)]).await;
    assert_eq!(told(call.next().await).len(), 2);
    call.send(&watch(since(1)));
    let _created: pb::WatchResponse = call.next().await;
    let compacted: pb::WatchResponse = call.next().await;
    assert!(compacted.canceled && compacted.compact_revision > 1, "{compacted:?}");
    // One in the future is told of what comes then.
    call.send(&watch(since(first + 3)));
    let _created: pb::WatchResponse = call.next().await;
    put(&client, "a", "3", 0).await;
    assert_eq!(told(call.next().await), one(0, "create", "a/3", false));
    put(&client, "a", "4", 0).await;
    let mut both = [told(call.next().await), told(call.next().await)];
    both.sort();
    assert_eq!(both, [one(0, "create", "a/4", false), one(2, "create", "a/4", false)]);
}

#[tokio::test]
async fn a_lease_is_renewed_asked_for_and_revoked_with_its_keys() {
    let node = Node::start().await;
    let client = node.client().await;
    let lease = grant(&client, 60).await;
    put(&client, "a", "1", lease).await;
    let left: pb::LeaseTimeToLiveResponse =
        client.unary(LEFT, pb::LeaseTimeToLiveRequest { id: lease, keys: true }).await.unwrap();
    assert_eq!((left.granted_ttl, left.keys), (60, vec![key("a", "1")]));
    let mut call = client.open(ALIVE, &[]).await;
    for (id, ttl) in [(lease, 60), (4711, 0), (lease, 60)] {
        call.send(&pb::LeaseKeepAliveRequest { id }.encode_to_vec());
        let alive: pb::LeaseKeepAliveResponse = call.next().await;
        assert_eq!((alive.id, alive.ttl), (id, ttl));
    }
    call.half_close();
    assert_eq!(call.end().await["grpc-status"], "0");
    let _: pb::LeaseRevokeResponse =
        client.unary(REVOKE, pb::LeaseRevokeRequest { id: lease }).await.unwrap();
    assert_eq!(read(&client).await.count, 0);
    let lost = "etcdserver: requested lease not found";
    let again = refused(&client, REVOKE, pb::LeaseRevokeRequest { id: lease }).await;
    assert_eq!((again.0.as_str(), again.1.as_str()), ("5", lost));
    let orphan = refused(&client, PUT, put_request("a", "1", lease)).await;
    assert_eq!((orphan.0.as_str(), orphan.1.as_str()), ("5", lost));
    let unknown: pb::LeaseTimeToLiveResponse =
        client.unary(LEFT, pb::LeaseTimeToLiveRequest { id: lease, keys: false }).await.unwrap();
    assert_eq!(unknown.ttl, -1);
}

#[tokio::test]
async fn what_is_no_instance_is_refused_and_says_why() {
    let node = Node::start().await;
    let client = node.client().await;
    let good = put_request("a", "1", 0);
    let bad = |key: &'static str, value: &'static str| pb::PutRequest {
        key: key.into(),
        value: value.into(),
        ..Default::default()
    };
    for (ask, says) in [
        (bad("", ""), "key is not provided"),
        (bad("foo", "bar"), "the key is not of that form"),
        (bad("/micro/registry/a/1", "bar"), "the value is not"),
        (bad("/micro/registry/a/1", "{}"), "not exactly one node"),
        (pb::PutRequest { key: key("b", "1"), ..good.clone() }, "another service or node"),
        (pb::PutRequest { value: vec![b'x'; 600 << 10].into(), ..good.clone() }, "too large"),
        (pb::PutRequest { ignore_value: true, ..good.clone() }, "value is provided"),
        (
            pb::PutRequest { ignore_value: true, value: Bytes::new(), ..good.clone() },
            "key not found",
        ),
    ] {
        let (status, why) = refused(&client, PUT, ask).await;
        assert!(status == "3" && why.contains(says), "{status} {why}");
    }
    *node.desk.refuse.lock() = Some(RegistrarError::Refused("not granted".into()));
    let (status, why) = refused(&client, PUT, good).await;
    assert_eq!((status.as_str(), why.as_str()), ("7", "not granted"));
    assert_eq!(read(&client).await.count, 0);
    let mut garbage = client.open(WATCH, &[]).await;
    garbage.send(b"\xff\xff\xff");
    assert_eq!(garbage.end().await["grpc-status"], "3");
}

/// As many as a large network has; a client of etcd takes them in one answer.
#[tokio::test]
async fn an_answer_may_be_larger_than_a_message_of_go_micro() {
    let node = Node::start().await;
    let client = node.client().await;
    for at in 0..6 {
        let mut far = registration("large", "v1", &at.to_string(), "10.9.0.7:4000");
        far.instance.metadata = [("pad", &*"x".repeat(1 << 20))].into_iter().collect();
        node.desk.put(id(2), far, Some(proto::Cost::ZERO));
    }
    let answer = read(&client).await;
    assert_eq!(answer.kvs.len(), 6);
    for at in 6..18 {
        let mut far = registration("large", "v1", &at.to_string(), "10.9.0.7:4000");
        far.instance.metadata = [("pad", &*"x".repeat(1 << 20))].into_iter().collect();
        node.desk.put(id(2), far, Some(proto::Cost::ZERO));
    }
    let (status, why) = refused(&client, RANGE, all()).await;
    assert!(status == "8" && why.contains("ask with a limit"), "{status} {why}");
    let some: pb::RangeResponse =
        client.unary(RANGE, pb::RangeRequest { limit: 2, ..all() }).await.unwrap();
    assert_eq!((some.kvs.len(), some.more, some.count), (2, true, 18));
}

#[tokio::test]
async fn a_service_that_flaps_is_told_truly_and_leaves_nothing_behind() {
    let node = Node::start().await;
    let client = node.client().await;
    let mut call = watching(&client, &[of_service("flappy"), of_service("calm")]).await;
    for _ in 0..50 {
        let lease = grant(&client, 60).await;
        put(&client, "flappy", "1", lease).await;
        let _: pb::LeaseRevokeResponse =
            client.unary(REVOKE, pb::LeaseRevokeRequest { id: lease }).await.unwrap();
    }
    put(&client, "calm", "1", 0).await;
    let mut seen: Vec<(i64, &str, String, bool)> = Vec::new();
    let mut revisions = std::collections::BTreeMap::new();
    // What changes between two looks is told together, by name: calm's may come before flappy's last.
    let over = |seen: &[(i64, &str, String, bool)]| {
        let flappy = seen.iter().rfind(|(watch, ..)| *watch == 0);
        let calm = seen.iter().any(|(watch, ..)| *watch != 0);
        calm && flappy.is_none_or(|(_, what, ..)| *what == "delete")
    };
    while !over(&seen) {
        let answer: pb::WatchResponse = call.next().await;
        for event in &answer.events {
            let kv = event.kv.as_ref().unwrap();
            let before = revisions.insert(answer.watch_id, kv.mod_revision);
            assert!(before < Some(kv.mod_revision), "revisions of a watch only grow");
        }
        seen.extend(told(answer));
    }
    let of_flappy: Vec<_> =
        seen.iter().filter(|(watch, ..)| *watch == 0).map(|one| one.1).collect();
    assert!(of_flappy.len() % 2 == 0, "{of_flappy:?}");
    for pair in of_flappy.chunks(2) {
        assert_eq!(pair, ["create", "delete"]);
    }
    assert_eq!(read(&client).await.count, 1);
}

#[tokio::test]
async fn tools_are_told_who_answers_and_a_name_gets_a_token() {
    let node = Node::start().await;
    let client = node.client().await;
    let members: pb::MemberListResponse =
        client.unary("/etcdserverpb.Cluster/MemberList", pb::MemberListRequest {}).await.unwrap();
    assert_eq!((members.members.len(), members.members[0].name.as_str()), (1, "laptop"));
    let status: pb::StatusResponse =
        client.unary("/etcdserverpb.Maintenance/Status", pb::StatusRequest {}).await.unwrap();
    assert!(status.version.starts_with("3.4.0") && status.leader == members.members[0].id);
    let ask = pb::AuthenticateRequest { name: "root".into(), password: "pw".into() };
    let token: pb::AuthenticateResponse =
        client.unary("/etcdserverpb.Auth/Authenticate", ask).await.unwrap();
    assert!(!token.token.is_empty());
    let (status, _) = refused(&client, "/etcdserverpb.KV/Compact", pb::StatusRequest {}).await;
    assert_eq!(status, "12");
}
