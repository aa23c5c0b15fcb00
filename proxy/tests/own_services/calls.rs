//! The shape of calls: content types, unknown names, messages that are none.

use proto::micro::{debug, registry as pb};

use crate::client::micro_error;
use crate::node::Node;

const LIST: &str = "/go.micro.registry.Registry/ListServices";

#[tokio::test]
async fn the_content_type_of_the_request_comes_back_and_an_unknown_subtype_is_protobuf() {
    let node = Node::start().await;
    let client = node.client().await;
    for content_type in [
        "application/grpc",
        "application/grpc+proto",
        "application/grpc+bytes",
        "application/grpc+frobnicated",
        "application/grpc+proto;charset=utf-8",
    ] {
        let mut call = client.open(LIST, &[("content-type", content_type)]).await;
        call.send(b"");
        assert_eq!(call.only().await.unwrap(), "", "{content_type}");
        assert_eq!(call.headers["content-type"], content_type);
    }
    let headers = [("content-type", "application/grpc"), ("x-content-type", "application/json")];
    let mut call = client.open(LIST, &headers).await;
    call.send(b"{}");
    assert_eq!(call.only().await.unwrap(), "{}");
}

#[tokio::test]
async fn an_unknown_struct_or_method_is_unimplemented_in_the_words_of_go_micro() {
    let node = Node::start().await;
    let client = node.client().await;
    for (path, text) in [
        ("/go.micro.registry.Nope/GetService", "unknown service Nope"),
        ("/go.micro.registry.Registry/Nope", "unknown service Registry.Nope"),
        ("/go.micro.registry.Registry/", "unknown service Registry."),
        ("/go.micro.registry.registry/GetService", "unknown service registry"),
    ] {
        let mut call = client.open(path, &[]).await;
        call.send(b"");
        let end = call.only().await.unwrap_err();
        assert_eq!(end["grpc-status"], "12");
        assert_eq!(end["grpc-message"], text);
    }
}

#[tokio::test]
async fn what_is_no_call_is_told_so_in_http() {
    let node = Node::start_bare().await;
    let client = node.client().await;
    let mut call = client.open(LIST, &[("content-type", "application/json")]).await;
    call.half_close();
    call.head().await;
    assert_eq!(call.status, 415);
}

#[tokio::test]
async fn a_message_too_long_is_refused_by_its_prefix_alone() {
    let node = Node::start().await;
    let client = node.client().await;
    let mut call = client.open(LIST, &[]).await;
    call.send_raw(0, 4 * 1024 * 1024 + 1, b"x");
    let end = call.only().await.unwrap_err();
    assert_eq!(end["grpc-status"], "8");
    assert_eq!(micro_error(&end)["code"], 413);
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_and_the_connection_lives_on() {
    let node = Node::start().await;
    let client = node.client().await;

    let mut compressed = client.open(LIST, &[]).await;
    compressed.send_raw(1, 0, b"");
    assert_eq!(compressed.only().await.unwrap_err()["grpc-status"], "12");

    let mut garbage = client.open("/go.micro.registry.Registry/GetService", &[]).await;
    garbage.send(b"\xff\xff\xff");
    assert_eq!(micro_error(&garbage.only().await.unwrap_err())["code"], 400);

    let json = [("content-type", "application/grpc+json")];
    for text in ["{", "[]", "null", "{\"service\": 5}", "{} {}", "\u{0}"] {
        let mut call = client.open("/go.micro.registry.Registry/GetService", &json).await;
        call.send(text.as_bytes());
        assert_eq!(micro_error(&call.only().await.unwrap_err())["code"], 400, "{text}");
    }

    let mut deep = client.open("/go.micro.registry.Registry/Register", &json).await;
    let nested = "{\"values\":[".repeat(10_000);
    deep.send(format!("{{\"endpoints\":[{{\"request\":{nested}").as_bytes());
    assert_eq!(micro_error(&deep.only().await.unwrap_err())["code"], 400);

    let mut nothing = client.open(LIST, &[]).await;
    nothing.half_close();
    assert_eq!(micro_error(&nothing.only().await.unwrap_err())["code"], 400);

    let mut half = client.open(LIST, &[]).await;
    half.send_raw(0, 10, b"abc");
    half.half_close();
    assert_eq!(micro_error(&half.only().await.unwrap_err())["code"], 400);

    let mut gone = client.open(LIST, &[]).await;
    gone.reset();

    let mut deadline = client.open(LIST, &[("grpc-timeout", "soon")]).await;
    deadline.send(b"");
    assert_eq!(micro_error(&deadline.only().await.unwrap_err())["code"], 400);

    let _: pb::ListResponse = client.unary(LIST, pb::ListRequest::default()).await.unwrap();
}

#[tokio::test]
async fn a_caller_that_sends_no_message_is_answered_at_its_deadline() {
    let node = Node::start().await;
    let client = node.client().await;
    let mut call = client.open(LIST, &[("grpc-timeout", "20m")]).await;
    let end = call.only().await.unwrap_err();
    assert_eq!(end["grpc-status"], "4");
    assert_eq!(micro_error(&end)["code"], 408);
}

#[tokio::test]
async fn every_name_of_ours_answers_debug() {
    let node = Node::start().await;
    let client = node.client().await;
    for name in ["go.micro.registry", "go.micro.network", "go.micro.router", "go.micro.proxy"] {
        let request = debug::HealthRequest::default();
        let path = format!("/{name}.Debug/Health");
        let health: debug::HealthResponse = client.unary(&path, request).await.unwrap();
        assert_eq!(health.status, "ok");
    }
    let path = "/go.micro.registry.Debug/Stats";
    let stats = client.json(path, &serde_json::json!({})).await.unwrap();
    assert_eq!(stats["requests"], "5", "counts are text in JSON, and these are the calls above");
    assert!(stats["memory"].as_str().unwrap().parse::<u64>().unwrap() > 1024 * 1024);
}

#[tokio::test]
async fn debug_tells_the_last_lines_and_those_to_come() {
    use prost::Message as _;
    let node = Node::start().await;
    let client = node.client().await;
    node.desk.logs.add("INFO", "test", "before".into());
    let mut log = client.open("/go.micro.registry.Debug/Log", &[]).await;
    log.send(&debug::LogRequest { stream: true, ..Default::default() }.encode_to_vec());
    let line: debug::Record = log.next().await;
    assert_eq!((&*line.message, &*line.metadata["level"]), ("before", "INFO"));
    node.desk.logs.add("WARN", "test", "after".into());
    assert_eq!(log.next::<debug::Record>().await.message, "after");
    log.half_close();
    node.own.drain();
    assert_eq!(log.end().await["grpc-status"], "14", "a stream without end ends with the node");
}

#[tokio::test]
async fn debug_tells_the_calls_of_a_trace_and_that_no_answer_is_cached() {
    let node = Node::start().await;
    let client = node.client().await;
    let list = "/go.micro.registry.Registry/ListServices";
    let traced = [("micro-trace-id", "t-1"), ("micro-span-id", "s-1")];
    let mut call = client.open(list, &traced).await;
    call.send(b"");
    call.only().await.unwrap();
    client.json(list, &serde_json::json!({})).await.unwrap();
    let ask = debug::TraceRequest { id: "t-1".into() };
    let path = "/go.micro.registry.Debug/Trace";
    let found: debug::TraceResponse = client.unary(path, ask).await.unwrap();
    let [span] = &found.spans[..] else { panic!("one call was of the trace: {found:?}") };
    assert_eq!((&*span.parent, &*span.name, span.r#type), ("s-1", list, 0));
    assert!(span.started > 1_600_000_000_000_000_000 && span.duration > 0, "{span:?}");
    let path = "/go.micro.registry.Debug/Cache";
    let cache: debug::CacheResponse = client.unary(path, debug::CacheRequest {}).await.unwrap();
    assert!(cache.values.is_empty());
}

#[tokio::test]
async fn a_node_that_drains_ends_its_watches_and_is_done() {
    let node = Node::start_bare().await;
    let proxy = node.proxy().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = proxy.clone();
    tokio::spawn(async move { serving.serve(listener).await });
    let client = crate::client::Client::connect(address).await;
    let mut watch = client.open("/go.micro.registry.Registry/Watch", &[]).await;
    watch.send(b"");
    watch.head().await;
    let drain = proxy.drain();
    assert_eq!(watch.end().await["grpc-status"], "14");
    crate::client::within(drain.idle()).await;
}
