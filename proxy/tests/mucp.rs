//! MUCP through the proxy, from and to gRPC and itself: the same over one node as over two. The
//! exchanges below `captured` are those of real programs.

#![allow(unreachable_pub, reason = "a module of a test is reachable from nowhere else")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod common;

use common::grpc::Client;
use common::mucp::{Caller, Instance, captured, error, messages, request, says, status};
use common::service::{Seen, Service};
use common::{PLACES, Place, World, soon};
use proto::TopicPattern;
use proto::record::{Interest, Protocol};
use proxy::broker::{Mailbox, Overflow};
use proxy::mucp::Side;

const GREETER: &str = "go.micro.srv.greeter";

/// A gRPC service and a MUCP caller.
async fn grpc_service(place: Place) -> (World, Service, Caller) {
    let world = World::new().await;
    let service = Service::start().await;
    world.offer(GREETER, place, service.address, Protocol::Grpc);
    let caller = Caller::connect(world.here.address).await;
    (world, service, caller)
}

/// A MUCP service and a gRPC caller.
async fn mucp_service(place: Place) -> (World, Instance, Client) {
    let world = World::new().await;
    let instance = Instance::start().await;
    world.offer(GREETER, place, instance.address, Protocol::Mucp);
    let client = Client::connect(world.here.address).await;
    (world, instance, client)
}

fn path(method: &str) -> String {
    format!("/{GREETER}.Say/{method}")
}

const JSON: (&str, &str) = ("content-type", "application/grpc+json");

#[tokio::test]
async fn a_real_unary_call_reaches_a_grpc_service_and_is_answered() {
    for place in PLACES {
        let (_world, mut service, mut caller) = grpc_service(place).await;
        for (name, kind, grpc) in [
            ("unary-json.request", "application/json", "application/grpc+json"),
            ("unary-protobuf.request", "application/protobuf", "application/grpc+proto"),
        ] {
            let sent = captured(name);
            caller.send(&sent).await;
            let answer = caller.answer().await;
            assert_eq!(status(&answer), 200, "{place:?}");
            assert_eq!(answer.body, messages(Side::Requests, &sent)[0].body, "{name}");
            for (header, value) in [
                ("content-type", kind),
                ("micro-id", "0"),
                ("x-micro-id", "0"),
                ("micro-service", GREETER),
                ("x-head", "1"),
                ("x-trailer", "2"),
            ] {
                assert_eq!(answer.headers[header], value, "{name}: {header}");
            }
            for absent in ["micro-error", "micro-node", "x-interop", "timeout", "grpc-status"] {
                assert!(!answer.headers.contains_key(absent), "{name}: {absent}");
            }
            let Seen::Request(seen) = service.next().await else { panic!("a request first") };
            assert_eq!(seen["content-type"], grpc);
            assert_eq!(seen["x-content-type"], kind);
            assert!(seen.contains_key("grpc-timeout") && seen.contains_key("timeout"));
            assert_eq!(seen["te"], "trailers");
            let used_up = ["micro-service", "micro-endpoint", "micro-method", "micro-id", "accept"];
            assert!(used_up.iter().all(|name| !seen.contains_key(*name)), "{seen:?}");
            if name == "unary-json.request" {
                assert_eq!(seen["x-interop"], "from-client");
                assert_eq!(seen["x-lower"], "also");
            }
        }
    }
}

#[tokio::test]
async fn a_real_stream_of_one_message_has_three_answers_and_an_end() {
    for place in PLACES {
        let (_world, _service, mut caller) = grpc_service(place).await;
        caller.send(captured("stream-count.request")).await;
        for _ in 0..3 {
            let answer = caller.answer().await;
            assert_eq!(answer.body, "{\"seq\":40}\n", "{place:?}");
            assert_eq!((says(&answer, "micro-stream"), says(&answer, "micro-id")), ("0", "0"));
        }
        let end = caller.answer().await;
        assert_eq!((says(&end, "micro-error"), end.body.len()), ("EOS", 0));
        // The connection is good for more, and what the caller still says of its stream is nothing.
        let more = "Micro-Stream: 0\r\nMicro-Error: EOS\r\n";
        caller.send(request(GREETER, "Say.Count", more, "")).await;
        caller.send(request(GREETER, "Say.Hello", "", "again")).await;
        assert_eq!(caller.answer().await.body, "again");
    }
}

#[tokio::test]
async fn messages_of_a_stream_go_both_ways_as_they_come_until_its_caller_ends() {
    for place in PLACES {
        let (_world, mut service, mut caller) = grpc_service(place).await;
        let sent = String::from_utf8(captured("stream-echo.request")).unwrap();
        caller.send(sent.replace("Say.Echo", "Say.Mirror")).await;
        for seq in 0..3 {
            assert_eq!(caller.answer().await.body, format!("{{\"seq\":{seq}}}\n"), "{place:?}");
        }
        let end = "Micro-Stream: 0\r\nMicro-Error: EOS\r\n";
        caller.send(request(GREETER, "Say.Mirror", end, "")).await;
        service.saw(&Seen::HalfClosed).await;
        assert_eq!(caller.answer().await.headers["micro-error"], "EOS");
    }
}

#[tokio::test]
async fn errors_of_services_and_of_nodes_are_errors_of_go_micro() {
    for place in PLACES {
        let (_world, _service, mut caller) = grpc_service(place).await;
        caller.send(request(GREETER, "Say.Fail", "", "{}")).await;
        let answer = caller.answer().await;
        assert_eq!((status(&answer), answer.body.len()), (200, 0), "{place:?}");
        let said = error(&answer);
        assert_eq!((said["code"].as_u64(), said["detail"].as_str()), (Some(412), Some("no")));
        assert_eq!(answer.headers["x-micro-error"], answer.headers["micro-error"]);
        assert!(!answer.headers.contains_key("micro-node"), "a service is no node");

        caller.send(request("nobody", "Say.Hello", "", "{}")).await;
        let answer = caller.answer().await;
        assert_eq!(error(&answer)["code"], 404);
        assert_eq!(error(&answer)["id"], "micro.here");
        assert_eq!(answer.headers["micro-node"], "here");

        let stream = "Micro-Stream: 1\r\n";
        caller.send(request("nobody", "Say.Hello", stream, "{}")).await;
        assert_eq!(error(&caller.answer().await)["code"], 404);
        caller.send(request(GREETER, "Say.Hello", "Micro-Version: v9\r\n", "{}")).await;
        assert_eq!(error(&caller.answer().await)["code"], 404, "selection headers count");
    }
}

/// An event as go-micro writes one.
fn event(topic: &str, body: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nHost: 127.0.0.1:8081\r\nUser-Agent: Go-http-client/1.1\r\n\
         Content-Length: {}\r\nAccept: application/json\r\nContent-Type: application/json\r\n\
         Micro-Id: 7\r\n{topic}X-user-Name: ada\r\nMicro-From-Service: shop\r\n\
         Authorization: Bearer x\r\nCookie: a=b\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn events_are_published_in_order_and_bad_ones_are_told() {
    let world = World::new().await;
    let mailbox = Mailbox::new(Overflow::DropOldest);
    let pattern = TopicPattern::new("orders.*".to_owned()).unwrap();
    let interest = Interest { namespace: "".into(), pattern, group: None };
    let _held = world.here.proxy.broker().subscribe(&mailbox, 0, interest).unwrap();

    let mut caller = Caller::connect(world.here.address).await;
    for body in ["one", "two", "three"] {
        caller.send(event("Micro-Topic: orders.created\r\n", body)).await;
        let answer = caller.answer().await;
        assert_eq!((status(&answer), answer.body.len()), (200, 0));
        assert_eq!(answer.headers["micro-id"], "7");
        assert!(!answer.headers.contains_key("micro-error"), "{:?}", answer.headers);
    }
    for bad in ["", "orders..created", "orders.*", "a b"] {
        caller.send(event(&format!("Micro-Topic: {bad}\r\n"), "bad")).await;
        let said = error(&caller.answer().await);
        assert_eq!((&said["code"], &said["id"]), (&400.into(), &"micro.here".into()), "{bad}");
    }
    let page = "Micro-Topic: orders.created\r\nOrigin: http://elsewhere.example:8081\r\n";
    caller.send(event(page, "of a page")).await;
    assert_eq!(error(&caller.answer().await)["code"], 403);
    caller.send(event("Micro-Topic: orders.last\r\n", "four")).await;
    assert_eq!(status(&caller.answer().await), 200, "the connection goes on");

    let heard = soon(mailbox.take(16)).await.unwrap();
    let bodies: Vec<_> = heard.iter().map(|item| &item.message.payload[..]).collect();
    assert_eq!(bodies, [&b"one"[..], b"two", b"three", b"four"], "once each, in order");
    let mut headers: Vec<_> = heard[0].message.headers.iter().collect();
    headers.sort_unstable();
    assert_eq!(
        headers,
        [
            ("Content-Type", &b"application/json"[..]),
            ("Micro-From-Service", b"shop"),
            ("Micro-Id", b"7"),
            ("Micro-Topic", b"orders.created"),
            ("X-User-Name", b"ada"),
        ]
    );

    let twice = "Micro-Topic: orders.created\r\nMicro-Topic: orders.other\r\n";
    caller.send(event(twice, "two ways")).await;
    let refused = caller.rest().await;
    assert_eq!(refused.iter().map(status).collect::<Vec<_>>(), [400], "and closed");
    assert_eq!(mailbox.waiting(), 0);
}

#[tokio::test]
async fn a_caller_whose_time_is_up_or_who_goes_cancels_the_call() {
    for place in PLACES {
        let (world, mut service, mut caller) = grpc_service(place).await;
        caller.send(captured("unary-slow.request")).await;
        assert_eq!(error(&caller.answer().await)["code"], 408, "{place:?}");
        service.saw(&Seen::Reset).await;

        let mut caller = Caller::connect(world.here.address).await;
        caller.send(request(GREETER, "Say.Wait", "", "{}")).await;
        let Seen::Request(_) = service.next().await else { panic!("a request first") };
        drop(caller);
        service.saw(&Seen::Reset).await;

        let mut caller = Caller::connect(world.here.address).await;
        caller.send(request(GREETER, "Say.Hang", "Micro-Stream: 1\r\n", "{}")).await;
        assert_eq!(caller.answer().await.body, "one");
        drop(caller);
        service.saw(&Seen::Reset).await;
    }
}

#[tokio::test]
async fn a_grpc_caller_reads_what_a_real_mucp_service_answered() {
    for place in PLACES {
        let (_world, mut instance, client) = mucp_service(place).await;
        let headers = [JSON, ("x-user", "ada"), ("grpc-timeout", "5S"), ("micro-service", "other")];
        let answer = client.unary(&path("Hello"), &headers, b"{\"name\":\"Ada\"}").await;
        let real = &messages(Side::Responses, &captured("unary-json.response"))[0];
        assert_eq!((answer.status(), &answer.messages[..]), (Some("0"), &[real.body.clone()][..]));
        assert_eq!(answer.head["content-type"], "application/grpc+json", "{place:?}");
        let echoed = ["x-interop", "micro-id", "timeout", "user-agent"];
        assert!(echoed.iter().all(|name| answer.header(name).is_none()), "{answer:?}");
        let (_, seen) = instance.message().await;
        assert_eq!(seen.body, "{\"name\":\"Ada\"}");
        for (name, value) in [
            ("content-type", "application/json"),
            ("accept", "application/json"),
            ("micro-service", GREETER),
            ("micro-endpoint", "Say.Hello"),
            ("micro-method", "Say.Hello"),
            ("x-user", "ada"),
        ] {
            assert_eq!(seen.headers[name], value, "{name}");
        }
        let left: u64 = seen.headers["timeout"].to_str().unwrap().parse().unwrap();
        assert!((1..=5_000_000_000).contains(&left), "{left} ns");
        assert!(seen.headers.keys().all(|name| !name.as_str().starts_with("grpc-")));

        let answer = client.unary(&path("Hello"), &[JSON], b"{\"name\":\"error\"}").await;
        assert_eq!(answer.status(), Some("7"));
        let said: serde_json::Value =
            serde_json::from_str(answer.header("grpc-message").unwrap()).unwrap();
        assert_eq!(
            (said["code"].as_u64(), said["id"].as_str()),
            (Some(403), Some("go.micro.srv.greeter.say"))
        );
        assert!(answer.header("grpc-status-details-bin").is_some());
        assert_eq!(answer.header("micro-error"), None, "only nodes say that");

        let kind = ("content-type", "application/grpc+proto");
        let answer = client.unary(&path("Raw"), &[kind], b"\n\x01x").await;
        let real = &messages(Side::Responses, &captured("unary-protobuf.response"))[0];
        assert_eq!(answer.messages, std::slice::from_ref(&real.body));
    }
}

#[tokio::test]
async fn a_grpc_stream_is_a_stream_at_a_mucp_service_that_does_not_half_close() {
    for place in PLACES {
        let (_world, mut instance, client) = mucp_service(place).await;
        let mut call = client.call(&path("Count"), &[JSON]);
        call.say(b"{\"seq\":40}");
        let answer = call.finish().await;
        let real = messages(Side::Responses, &captured("stream-count.response"));
        let bodies: Vec<_> = real[..3].iter().map(|message| message.body.clone()).collect();
        assert_eq!(answer.status(), Some("0"), "{place:?}");
        assert_eq!(answer.messages, bodies);
        let (_, begins) = instance.message().await;
        assert!(begins.headers.contains_key("micro-stream") && begins.body.is_empty());
        assert!(!begins.headers.contains_key("timeout"), "there is no deadline");
        let (_, says) = instance.message().await;
        assert_eq!(says.headers["micro-stream"], begins.headers["micro-stream"]);
        assert_eq!(says.body, "{\"seq\":40}");
        instance.closed().await;
    }
}

#[tokio::test]
async fn a_grpc_caller_that_half_closes_gets_everything_and_an_end() {
    for place in PLACES {
        let (_world, mut instance, client) = mucp_service(place).await;
        let mut call = client.call(&path("Mirror"), &[JSON]);
        for text in ["1", "2", "3"] {
            call.say(text.as_bytes());
        }
        call.half_close();
        let answer = call.finish().await;
        assert_eq!(answer.status(), Some("0"), "{place:?}");
        assert_eq!(answer.messages, ["1", "2", "3"]);
        let mut ends = false;
        while !ends {
            ends =
                instance.message().await.1.headers.get("micro-error").is_some_and(|e| e == "EOS");
        }
        instance.closed().await;
    }
}

#[tokio::test]
async fn a_grpc_call_that_is_given_up_closes_the_connection_of_the_mucp_service() {
    for place in PLACES {
        let (_world, mut instance, client) = mucp_service(place).await;
        let mut call = client.call(&path("Wait"), &[JSON]);
        call.send.send_data(common::grpc::message(b"{}"), true).unwrap();
        instance.message().await;
        call.send.send_reset(h2::Reason::CANCEL);
        instance.closed().await;
        let answer = client.unary(&path("Wait"), &[JSON, ("grpc-timeout", "50m")], b"{}").await;
        assert_eq!(answer.status(), Some("4"), "{place:?}");
        instance.closed().await;
    }
}

#[tokio::test]
async fn mucp_crosses_to_mucp_unchanged() {
    for place in PLACES {
        let (world, mut instance, _) = mucp_service(place).await;
        let mut caller = Caller::connect(world.here.address).await;
        let sent = captured("unary-json.request");
        caller.send(&sent).await;
        let real = &messages(Side::Responses, &captured("unary-json.response"))[0];
        assert_eq!(caller.answer().await.body, real.body, "{place:?}");
        let (_, seen) = instance.message().await;
        let sent = &messages(Side::Requests, &sent)[0];
        for name in [
            "accept",
            "content-type",
            "micro-service",
            "micro-endpoint",
            "micro-method",
            "x-interop",
        ] {
            assert_eq!(seen.headers.get(name), sent.headers.get(name), "{name}");
        }
        assert_eq!(seen.body, sent.body);
        let mut caller = Caller::connect(world.here.address).await;
        caller.send(captured("unary-error.request")).await;
        let real = &messages(Side::Responses, &captured("unary-error.response"))[0];
        assert_eq!(caller.answer().await.headers["micro-error"], real.headers["micro-error"]);
        let mut caller = Caller::connect(world.here.address).await;
        caller.send(captured("stream-count.request")).await;
        let answers = [caller.answer().await, caller.answer().await, caller.answer().await];
        assert!(answers.iter().all(|answer| answer.body == "{\"seq\":43}\n"));
        assert_eq!(caller.answer().await.headers["micro-error"], "EOS");
    }
}

#[tokio::test]
async fn calls_share_connections_to_an_instance_but_nothing_of_one_another() {
    let (_world, mut instance, client) = mucp_service(Place::Here).await;
    let first = client.unary(&path("Echo"), &[JSON, ("authorization", "Bearer ada")], b"1").await;
    let second = client.unary(&path("Echo"), &[JSON], b"2").await;
    assert_eq!((&first.messages[0][..], &second.messages[0][..]), (&b"1"[..], &b"2"[..]));
    assert_eq!(second.header("authorization"), None, "the instance repeats it on its connection");
    let (one, two) = (instance.message().await, instance.message().await);
    assert_eq!(one.0, two.0, "the same connection");
    assert_ne!(one.1.headers["micro-id"], two.1.headers["micro-id"]);
    assert!(!two.1.headers.contains_key("authorization"));
}

#[tokio::test]
async fn an_instance_may_answer_each_request_with_the_number_of_the_first_and_with_no_other() {
    let (_world, mut instance, client) = mucp_service(Place::Here).await;
    for body in [b"1", b"2", b"3"] {
        let answer = client.unary(&path("Numberless"), &[JSON], body).await;
        assert_eq!((answer.status(), &answer.messages[0][..]), (Some("0"), &body[..]));
        assert_eq!(instance.message().await.0, 0, "the same connection");
    }
    let answer = client.unary(&path("Misnumbered"), &[JSON], b"4").await;
    assert_eq!(answer.header("micro-error"), Some("M1012"), "{answer:?}");
}

#[tokio::test]
async fn an_instance_that_does_not_speak_mucp_is_blamed_and_its_connection_not_used_again() {
    for place in PLACES {
        let (_world, _instance, client) = mucp_service(place).await;
        for (method, code) in [("Other", "M1012"), ("Garbage", "M1012")] {
            let answer = client.unary(&path(method), &[JSON], b"{}").await;
            assert_eq!(answer.header("micro-error"), Some(code), "{place:?}: {method}: {answer:?}");
        }
        let answer = client.unary(&path("Unreadable"), &[JSON], b"{}").await;
        assert_eq!(
            (answer.status(), answer.header("grpc-message")),
            (Some("2"), Some("Unsupported"))
        );
    }
}
