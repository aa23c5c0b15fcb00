//! MUCP that two programs could read differently, that claims what only nodes may say, or that comes
//! where it should not (reliability classes 6 to 10, 18 and 19). What counts is what the service sees.

#![allow(unreachable_pub, reason = "a module of a test is reachable from nowhere else")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod common;

use common::mucp::{Caller, Instance, error, request, says, status};
use common::{PLACES, Place, World};
use proto::record::Protocol;
use proxy::Limits;

const MARKS: &str = "Micro-Service: greeter\r\nMicro-Endpoint: Say.Echo\r\nMicro-Id: 1\r\n";

async fn world(place: Place) -> (World, Instance) {
    let limits = Limits { message: 64 * 1024, ..Limits::default() };
    let world = World::with(limits).await;
    let instance = Instance::start().await;
    world.offer("greeter", place, instance.address, Protocol::Mucp);
    (world, instance)
}

/// Sends `bytes` and something hidden behind them; what was answered until the proxy closed.
async fn answers(world: &World, bytes: &str) -> Vec<proxy::mucp::Message> {
    let mut caller = Caller::connect(world.here.address).await;
    let hidden = request("greeter", "Say.Hello", "X-Hidden: 1\r\n", "");
    caller.send(format!("{bytes}{hidden}")).await;
    caller.rest().await
}

#[tokio::test]
async fn what_two_readers_could_take_for_two_things_is_refused_and_nothing_behind_it_is_read() {
    let (world, mut instance) = world(Place::Here).await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\n";
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Content-Length: 4, 4\r\n",
        "Content-Length: +4\r\n",
        "Content-Length: -4\r\n",
        "Content-Length: 0x4\r\n",
        "Content-Length: \r\n",
        "Content-Length: 18446744073709551620\r\n",
        "Content-Length : 4\r\n",
        "Content-Length:\r\n 4\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "X: a\rTransfer-Encoding: chunked\r\n",
        "X: a\nTransfer-Encoding: chunked\r\n",
        "X: a\0b\r\n",
        "Host: a\r\n",
        "Micro-Service: other\r\n",
        "micro-service: greeter\r\n",
        "Micro-Endpoint: Say.Other\r\n",
        "Micro-Method: Say.Other\r\n",
        "Micro-Id: 2\r\n",
        "Micro-Stream: 1\r\nMicro-Stream: 2\r\n",
        "Micro-From-Service: a\r\nMicro-From-Service: b\r\n",
        "Micro-Version: v1\r\nMicro-Version: v2\r\n",
        "Micro-Node: a\r\nMicro-Node: b\r\n",
        "Micro-Tier: a\r\nMicro-Tier: b\r\n",
        "Micro-Namespace: a\r\nMicro-Namespace: b\r\n",
        "Timeout: 1000000000\r\nTimeout: 9\r\n",
        "Content-Type: application/json\r\nContent-Type: application/protobuf\r\n",
        "Authorization: a\r\nAuthorization: b\r\n",
        ": empty\r\n",
        "no colon\r\n",
    ] {
        let all = answers(&world, &format!("{head}{MARKS}{fields}\r\n0\r\n\r\n")).await;
        let statuses: Vec<_> = all.iter().map(status).collect();
        assert_eq!(statuses, [400], "{fields:?}: {all:?}");
        assert!(instance.is_untouched(), "{fields:?}");
    }
    for bad in [
        "0x1\r\na\r\n0",
        "+1\r\na\r\n0",
        " 1\r\na\r\n0",
        "1 \r\na\r\n0",
        "-1\r\na\r\n0",
        "1\r\nab\r\n0",
        "1\na\n0",
        "fffffffff\r\na\r\n0",
        "\r\n1\r\na\r\n0",
    ] {
        let chunks = format!("{head}{MARKS}Transfer-Encoding: chunked\r\n\r\n{bad}\r\n\r\n");
        let all = answers(&world, &chunks).await;
        let statuses: Vec<_> = all.iter().map(status).collect();
        assert_eq!(statuses, [400], "{bad:?}: {all:?}");
        assert!(instance.is_untouched(), "{bad:?}");
    }
}

#[tokio::test]
async fn what_names_nothing_that_can_be_called_is_refused_with_the_reason() {
    let (world, mut instance) = world(Place::Here).await;
    for (marks, why) in [
        ("Micro-Service: greeter\r\n", "names Micro-Service and Micro-Endpoint"),
        (
            "Micro-Stream: 1\r\nMicro-Endpoint: Say.Echo\r\n",
            "names Micro-Service and Micro-Endpoint",
        ),
        (
            "Micro-Service: \r\nMicro-Endpoint: Say.Echo\r\n",
            "names Micro-Service and Micro-Endpoint",
        ),
        ("Micro-Service: greeter\r\nMicro-Endpoint: Echo\r\n", "is not Struct.Method"),
        ("Micro-Service: greeter\r\nMicro-Endpoint: Say.\r\n", "is not a name"),
        ("Micro-Service: greeter\r\nMicro-Endpoint: .Echo\r\n", "is not a name"),
        ("Micro-Service: greeter/../x\r\nMicro-Endpoint: Say.Echo\r\n", "is not a name"),
        ("Micro-Service: gree%74er\r\nMicro-Endpoint: Say.Echo\r\n", "is not a name"),
        ("Micro-Service: greeter\r\nMicro-Endpoint: Say.Echo?x\r\n", "is not a name"),
        ("Micro-Service: greeter\r\nMicro-Endpoint: Say/Echo.x\r\n", "is not a name"),
        ("Micro-Service: greeter.\r\nMicro-Endpoint: Say.Echo\r\n", "is not a name"),
        ("Micro-Service: greeter..x\r\nMicro-Endpoint: Say.Echo\r\n", "is not a name"),
        ("Micro-Service: greeter#\r\nMicro-Endpoint: Say.Echo\r\n", "is not a name"),
        ("Micro-Service: gr\u{e9}eter\r\nMicro-Endpoint: Say.Echo\r\n", "is not a name"),
    ] {
        let all = answers(&world, &format!("POST / HTTP/1.1\r\nHost: a\r\n{marks}\r\n")).await;
        assert_eq!(all.iter().map(status).collect::<Vec<_>>(), [400], "{marks:?}");
        let text = String::from_utf8_lossy(&all[0].body);
        assert!(text.starts_with("error[M1009]") && text.contains(why), "{marks:?}: {text}");
        assert!(instance.is_untouched(), "{marks:?}");
    }
}

#[tokio::test]
async fn headers_that_only_nodes_set_do_not_arrive_in_any_spelling() {
    for place in PLACES {
        let (world, mut instance) = world(place).await;
        let mut caller = Caller::connect(world.here.address).await;
        let spoofed = "micro-caller: root\r\nMicro_Caller: root\r\nX-Micro-Caller: root\r\n\
            x_micro_from_service: root\r\nMICRO-HOP: 9\r\nMicro-Path: x\r\nMicro-Route: x\r\n\
            X-Micro-Service: other\r\nX-Micro-Endpoint: Say.Wait\r\nmicro_service: other\r\n\
            Connection: X-Kept, Micro-Service\r\nX-Kept: 1\r\nGrpc-Timeout: 1n\r\n\
            Grpc-Encoding: gzip\r\nGrpc-Status: 0\r\nX-Content-Type: application/x\r\n\
            Te: gzip\r\nUpgrade: h2c\r\nProxy-Authorization: Basic x\r\nX-User: ada\r\n";
        caller.send(request("greeter", "Say.Echo", spoofed, "1")).await;
        assert_eq!(caller.answer().await.body, "1", "{place:?}");
        let (_, seen) = instance.message().await;
        assert_eq!(
            (says(&seen, "micro-service"), says(&seen, "micro-endpoint")),
            ("greeter", "Say.Echo")
        );
        assert_eq!(seen.headers["x-user"], "ada");
        let odd = |name: &str| {
            name.contains("caller")
                || name.contains('_')
                || name.starts_with("x-micro")
                || name.starts_with("grpc-")
        };
        let names: Vec<_> = seen.headers.keys().map(http::HeaderName::as_str).collect();
        assert!(!names.iter().any(|name| odd(name)), "{names:?}");
        for gone in [
            "micro-hop",
            "micro-path",
            "micro-route",
            "x-kept",
            "connection",
            "te",
            "upgrade",
            "proxy-authorization",
            "x-content-type",
        ] {
            assert!(!names.contains(&gone), "{gone}: {names:?}");
        }
    }
}

#[tokio::test]
async fn a_page_in_a_browser_calls_nothing_even_where_it_takes_the_name_of_this_machine() {
    let (world, mut instance) = world(Place::Here).await;
    for fields in
        ["Origin: http://evil.example\r\n", "Origin: null\r\n", "Sec-Fetch-Site: cross-site\r\n"]
    {
        let mut caller = Caller::connect(world.here.address).await;
        caller.send(request("greeter", "Say.Echo", fields, "")).await;
        assert_eq!(error(&caller.answer().await)["code"], 403, "{fields:?}");
    }
    // DNS rebinding: to the browser page and node are of one site.
    let rebound = request("greeter", "Say.Echo", "Origin: http://evil.example:8081\r\n", "");
    let mut caller = Caller::connect(world.here.address).await;
    caller.send(rebound.replace("127.0.0.1:8081", "evil.example:8081")).await;
    assert_eq!(error(&caller.answer().await)["code"], 403);
    assert!(instance.is_untouched());
    let mut caller = Caller::connect(world.here.address).await;
    caller.send(request("greeter", "Say.Echo", "Origin: http://localhost:3000\r\n", "1")).await;
    assert_eq!(caller.answer().await.body, "1");
}

#[tokio::test]
async fn mucp_and_other_http_do_not_follow_one_another_on_a_connection() {
    let (world, _instance) = world(Place::Here).await;
    let echo = request("greeter", "Say.Echo", "", "1");
    let plain = "GET / HTTP/1.1\r\nHost: greeter\r\n\r\n";
    for (first, second) in [(echo.as_str(), plain), (plain, echo.as_str())] {
        let mut caller = Caller::connect(world.here.address).await;
        caller.send(format!("{first}{second}")).await;
        let all = caller.rest().await;
        assert_eq!(all.len(), 2, "{first:?}: {all:?}");
        assert_eq!(status(&all[1]), 400);
        assert!(String::from_utf8_lossy(&all[1].body).contains("open another"), "{all:?}");
    }
}

#[tokio::test]
async fn a_stream_has_its_connection_for_itself() {
    let (world, _instance) = world(Place::Here).await;
    for beside in [
        request("greeter", "Say.Echo", "", "1"),
        request("greeter", "Say.Echo", "Micro-Stream: 2\r\n", "1"),
        "GET / HTTP/1.1\r\nHost: greeter\r\n\r\n".to_owned(),
    ] {
        let mut caller = Caller::connect(world.here.address).await;
        caller.send(request("greeter", "Say.Mirror", "Micro-Stream: 1\r\n", "{}")).await;
        caller.send(request("greeter", "Say.Mirror", "Micro-Stream: 1\r\n", "1")).await;
        assert_eq!(caller.answer().await.body, "1");
        caller.send(&beside).await;
        let all = caller.rest().await;
        assert_eq!(all.iter().map(status).collect::<Vec<_>>(), [400], "{beside:?}");
    }
}

#[tokio::test]
async fn messages_at_the_limit_pass_and_larger_ones_are_refused_both_ways() {
    for place in PLACES {
        let (world, _instance) = world(place).await;
        let mut caller = Caller::connect(world.here.address).await;
        let most = "x".repeat(64 * 1024);
        caller.send(request("greeter", "Say.Echo", "", &most)).await;
        assert_eq!(caller.answer().await.body.len(), most.len(), "{place:?}");
        caller.send(request("greeter", "Say.Echo", "", &format!("{most}x"))).await;
        assert_eq!(error(&caller.answer().await)["code"], 413, "{place:?}");
        let mut caller = Caller::connect(world.here.address).await;
        caller.send(request("greeter", "Say.Echo", "", &"x".repeat(66 * 1024))).await;
        assert_eq!(status(&caller.answer().await), 413);
    }
}

#[tokio::test]
async fn a_request_may_come_byte_by_byte_and_holds_up_nobody() {
    let (world, _instance) = world(Place::Here).await;
    let mut slow = Caller::connect(world.here.address).await;
    let bytes = request("greeter", "Say.Echo", "", "slow");
    for (at, byte) in bytes.bytes().enumerate() {
        slow.send([byte]).await;
        if at == bytes.len() / 2 {
            let mut other = Caller::connect(world.here.address).await;
            other.send(request("greeter", "Say.Echo", "", "other")).await;
            assert_eq!(other.answer().await.body, "other");
        }
    }
    assert_eq!(slow.answer().await.body, "slow");
}

#[tokio::test]
async fn who_waits_for_a_word_before_the_body_gets_it() {
    let (world, _instance) = world(Place::Here).await;
    let mut caller = Caller::connect(world.here.address).await;
    let whole = request("greeter", "Say.Echo", "Expect: 100-continue\r\n", "1");
    caller.send(&whole[..whole.len() - 1]).await;
    assert_eq!(status(&caller.answer().await), 100);
    caller.send("1").await;
    assert_eq!(caller.answer().await.body, "1");
}
