//! gRPC through the proxy: the same over one node as over two.

#![allow(unreachable_pub, reason = "a module of a test is reachable from nowhere else")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod common;

use common::grpc::{Client, Reader};
use common::service::{Seen, Service};
use common::{PLACES, Place, World, nobody, soon};
use proto::record::Protocol;

async fn world(place: Place) -> (World, Service, Client) {
    let world = World::new().await;
    let service = Service::start().await;
    world.offer("greeter", place, service.address, Protocol::Grpc);
    let client = Client::connect(world.here.address).await;
    (world, service, client)
}

#[tokio::test]
async fn a_unary_call_crosses_with_metadata_both_ways_and_trailers() {
    for place in PLACES {
        let (_world, mut service, client) = world(place).await;
        let headers = [("x-user", "ada"), ("x-user", "bob"), ("data-bin", "AAEC")];
        let answer = client.unary("/greeter.Say/Echo", &headers, b"hello").await;
        assert_eq!(answer.messages, ["hello"], "{place:?}");
        assert_eq!(answer.status(), Some("0"));
        assert_eq!(answer.head["x-head"], "1");
        assert_eq!(answer.trailers["x-trailer"], "2");
        let Seen::Request(seen) = service.next().await else { panic!("a request first") };
        let users: Vec<_> = seen.get_all("x-user").iter().collect();
        assert_eq!(users, ["ada", "bob"]);
        assert_eq!(seen["data-bin"], "AAEC");
        assert_eq!(seen["te"], "trailers");
        assert_eq!(seen["content-type"], "application/grpc");
    }
}

#[tokio::test]
async fn an_error_of_the_service_passes_untouched_and_never_looks_like_ours() {
    for place in PLACES {
        let (_world, _service, client) = world(place).await;
        let answer = client.unary("/greeter.Say/Fail", &[], b"").await;
        assert_eq!(answer.status(), Some("9"), "{place:?}");
        assert_eq!(answer.header("grpc-message"), Some("no"));
        assert_eq!(answer.header("grpc-status-details-bin"), Some("CAkSAm5v"));
        assert_eq!(answer.header("micro-error"), None);
        assert_eq!(answer.header("micro-node"), None);
    }
}

#[tokio::test]
async fn no_such_service_is_said_at_once_and_is_not_worth_a_retry() {
    let (_world, _service, client) = world(Place::Here).await;
    let answer = client.unary("/nobody.Say/Echo", &[], b"").await;
    assert_eq!(answer.status(), Some("5"));
    assert_eq!(answer.header("micro-error"), Some("M1203"));
    assert_eq!(answer.header("micro-node"), Some("here"));
    let json = answer.header("grpc-message").unwrap();
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(json["code"], 404);
}

#[tokio::test]
async fn the_authority_names_the_service_when_the_path_does_not() {
    for place in PLACES {
        let (world, _service, _) = world(place).await;
        let socket = tokio::net::TcpStream::connect(world.here.address).await.unwrap();
        let (mut send, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::post("http://greeter.localhost/helloworld.Greeter/Echo")
            .header("content-type", "application/grpc");
        let (response, mut body) = send.send_request(request.body(()).unwrap(), false).unwrap();
        body.send_data(common::grpc::message(b"x"), true).unwrap();
        let response = soon(response).await.unwrap();
        assert!(response.headers().contains_key("x-head"), "{place:?}");
    }
}

#[tokio::test]
async fn a_server_stream_answers_without_waiting_for_half_close() {
    for place in PLACES {
        let (_world, _service, client) = world(place).await;
        let mut call = client.call("/greeter.Say/Stream", &[]);
        call.say(b"100");
        // The request stays open, as go-micro leaves it.
        let (_open, response) = call.head().await;
        let mut body = response.into_body();
        let mut reader = Reader::default();
        for n in 0..100 {
            assert_eq!(reader.next(&mut body).await.unwrap(), n.to_string(), "{place:?}");
        }
        assert!(reader.next(&mut body).await.is_none());
        assert_eq!(soon(body.trailers()).await.unwrap().unwrap()["grpc-status"], "0");
    }
}

#[tokio::test]
async fn a_bidirectional_stream_carries_ten_thousand_messages_in_order() {
    for place in PLACES {
        let (_world, mut service, client) = world(place).await;
        let call = client.call("/greeter.Say/Mirror", &[]);
        let (mut send, response) = call.head().await;
        let mut body = response.into_body();
        let sending = async {
            for n in 0..10_000 {
                let text = common::grpc::message(n.to_string().as_bytes());
                assert!(common::service::send_all(&mut send, text).await);
            }
            send.send_data(bytes::Bytes::new(), true).unwrap();
        };
        let reading = async {
            let mut reader = Reader::default();
            for n in 0..10_000 {
                assert_eq!(reader.next(&mut body).await.unwrap(), n.to_string(), "{place:?}");
            }
            assert!(reader.next(&mut body).await.is_none());
        };
        tokio::join!(sending, reading);
        service.saw(&Seen::HalfClosed).await;
    }
}

#[tokio::test]
async fn a_deadline_shrinks_on_the_way_and_ends_the_call() {
    for place in PLACES {
        let (_world, mut service, client) = world(place).await;
        let headers = [("grpc-timeout", "200m"), ("timeout", "200000000")];
        let answer = client.unary("/greeter.Say/Wait", &headers, b"").await;
        assert_eq!(answer.status(), Some("4"), "{place:?}");
        assert_eq!(answer.header("micro-error"), Some("M1005"));
        let Seen::Request(seen) = service.next().await else { panic!("a request first") };
        let micros = seen["grpc-timeout"].to_str().unwrap().strip_suffix('u').unwrap();
        assert!(micros.parse::<u64>().unwrap() < 200_000);
        assert!(seen["timeout"].to_str().unwrap().parse::<u64>().unwrap() < 200_000_000);
        service.saw(&Seen::Reset).await;
    }
}

#[tokio::test]
async fn cancelling_reaches_the_service_before_and_after_it_answered() {
    for place in PLACES {
        for method in ["Wait", "Hang"] {
            let (_world, mut service, client) = world(place).await;
            let mut call = client.call(&format!("/greeter.Say/{method}"), &[]);
            call.send.send_data(common::grpc::message(b"x"), true).unwrap();
            let Seen::Request(_) = service.next().await else { panic!("a request first") };
            if method == "Hang" {
                let (mut send, response) = call.head().await;
                send.send_reset(h2::Reason::CANCEL);
                drop(response);
            } else {
                call.send.send_reset(h2::Reason::CANCEL);
            }
            service.saw(&Seen::Reset).await;
        }
    }
}

#[tokio::test]
async fn a_program_that_vanishes_cancels_its_calls() {
    for place in PLACES {
        let (world, mut service, _) = world(place).await;
        let socket = tokio::net::TcpStream::connect(world.here.address).await.unwrap();
        let (mut send, connection) = h2::client::handshake::<_>(socket).await.unwrap();
        let task = tokio::spawn(connection);
        let request = http::Request::post("http://x/greeter.Say/Wait")
            .header("content-type", "application/grpc");
        let _call = send.send_request(request.body(()).unwrap(), true).unwrap();
        let Seen::Request(_) = service.next().await else { panic!("a request first") };
        task.abort();
        service.saw(&Seen::Reset).await;
    }
}

#[tokio::test]
async fn an_instance_that_refuses_is_named_and_is_not_the_service_speaking() {
    for place in PLACES {
        let world = World::new().await;
        world.offer("gone", place, nobody().await, Protocol::Grpc);
        let client = Client::connect(world.here.address).await;
        let answer = client.unary("/gone.Say/Echo", &[], b"x").await;
        assert_eq!(answer.status(), Some("14"), "{place:?}");
        assert_eq!(answer.header("micro-error"), Some("M1004"));
        let node = if place == Place::Here { "here" } else { "there" };
        assert_eq!(answer.header("micro-node"), Some(node));
    }
}

#[tokio::test]
async fn a_call_that_no_instance_has_seen_goes_to_another() {
    for place in PLACES {
        let (world, _service, client) = world(place).await;
        for _ in 0..2 {
            world.offer("greeter", place, nobody().await, Protocol::Grpc);
        }
        for n in 0..30 {
            let answer = client.unary("/greeter.Say/Echo", &[], b"again").await;
            assert_eq!(answer.status(), Some("0"), "{place:?}, call {n}: {answer:?}");
            assert_eq!(answer.messages, ["again"]);
        }
    }
}

#[tokio::test]
async fn a_stream_that_the_instance_refused_unread_is_unseen() {
    for place in PLACES {
        let (_world, mut service, client) = world(place).await;
        let answer = client.unary("/greeter.Say/Refuse", &[], b"x").await;
        assert_eq!(answer.status(), Some("14"), "{place:?}");
        assert_eq!(answer.header("micro-error"), Some("M1004"));
        let Seen::Request(_) = service.next().await else { panic!("a request first") };
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_is_never_taken_for_whole() {
    for place in PLACES {
        let (_world, _service, client) = world(place).await;
        let mut call = client.call("/greeter.Say/Break", &[]);
        call.say(b"x");
        let (mut send, response) = call.head().await;
        let mut body = response.into_body();
        let mut reader = Reader::default();
        assert_eq!(reader.next(&mut body).await.unwrap(), "one");
        // Now it breaks.
        send.send_data(common::grpc::message(b"x"), false).unwrap();
        assert!(reader.next(&mut body).await.is_none());
        let trailers = soon(body.trailers()).await.unwrap().unwrap();
        assert_eq!(trailers["grpc-status"], "14", "{place:?}");
        assert_eq!(trailers["micro-error"], "M1007");
    }
}

#[tokio::test]
async fn messages_at_the_limit_pass_and_above_it_do_not() {
    for place in PLACES {
        let (_world, _service, client) = world(place).await;
        let most = vec![3; 4 * 1024 * 1024];
        let call = client.call("/greeter.Say/Echo", &[]);
        let mut send = call.send;
        let sending = async {
            let sent = common::service::send_all(&mut send, common::grpc::message(&most)).await;
            send.send_data(bytes::Bytes::new(), true).unwrap();
            sent
        };
        let (sent, answer) = tokio::join!(sending, common::grpc::read(call.response));
        let answer = answer.unwrap();
        assert!(sent);
        assert_eq!(answer.messages[0].len(), most.len(), "{place:?}");

        let mut call = client.call("/greeter.Say/Echo", &[]);
        let mut head = vec![0];
        head.extend_from_slice(&(4 * 1024 * 1024 + 1_u32).to_be_bytes());
        call.send.send_data(head.into(), false).unwrap();
        let answer = call.finish().await;
        assert_eq!(answer.status(), Some("8"), "{place:?}");
        assert_eq!(answer.header("micro-error"), Some("M1010"));
    }
}

#[tokio::test]
async fn a_node_that_cannot_be_reached_is_said_at_once() {
    let (world, _service, client) = world(Place::There).await;
    world.there.tunnel.close(std::time::Duration::ZERO).await;
    let answer = client.unary("/greeter.Say/Echo", &[], b"x").await;
    assert_eq!(answer.status(), Some("14"));
    assert_eq!(answer.header("micro-error"), Some("M1003"));
    assert_eq!(answer.header("micro-node"), Some("here"));
}

#[tokio::test]
async fn a_slow_reader_slows_the_service_and_nobody_else() {
    for place in PLACES {
        let (world, mut service, _) = world(place).await;
        let slow = Client::with_windows(world.here.address, 64 * 1024).await;
        let mut call = slow.call("/greeter.Say/Flood", &[]);
        call.say(b"x");
        let (_open, response) = call.head().await;
        // Nothing is read: the service is stopped by the windows on the way.
        let mut sent = 0;
        while let Ok(seen) =
            tokio::time::timeout(std::time::Duration::from_millis(700), service.seen.recv()).await
        {
            if let Some(Seen::Sent(bytes)) = seen {
                sent += bytes;
            }
        }
        assert!(sent < 8 << 20, "{place:?}: {sent} bytes on the way");
        let other = Client::connect(world.here.address).await;
        let answer = other.unary("/greeter.Say/Echo", &[], b"still here").await;
        assert_eq!(answer.messages, ["still here"], "{place:?}");
        drop(response);
    }
}

#[tokio::test]
async fn filters_choose_the_instance_and_what_matches_nothing_is_said() {
    let world = World::new().await;
    let (mut one, mut two) = (Service::start().await, Service::start().await);
    world.offer_with("shop", Place::Here, one.address, Protocol::Grpc, &[("version", "v1")]);
    world.offer_with("shop", Place::There, two.address, Protocol::Grpc, &[("version", "v2")]);
    let client = Client::connect(world.here.address).await;
    for (header, value, service) in
        [("micro-version", "v1", &mut one), ("micro-version", "v2", &mut two)]
    {
        let answer = client.unary("/shop.Say/Echo", &[(header, value)], b"").await;
        assert_eq!(answer.status(), Some("0"));
        let Seen::Request(seen) = service.next().await else { panic!("a request first") };
        assert!(!seen.contains_key(header), "filters are for this call only");
    }
    let answer = client.unary("/shop.Say/Echo", &[("micro-node", "there")], b"").await;
    assert_eq!(answer.status(), Some("0"));
    let Seen::Request(_) = two.next().await else { panic!("the node decides") };
    let answer = client.unary("/shop.Say/Echo", &[("micro-version", "v3")], b"").await;
    assert_eq!((answer.status(), answer.header("micro-error")), (Some("5"), Some("M1002")));
}

#[tokio::test]
async fn a_draining_node_refuses_what_is_new_and_finishes_what_it_has() {
    for place in PLACES {
        let (world, _service, client) = world(place).await;
        let call = client.call("/greeter.Say/Mirror", &[]);
        let (mut send, response) = call.head().await;
        let drain = world.node(place).proxy.drain();
        if place == Place::There {
            let answer = client.unary("/greeter.Say/Echo", &[], b"").await;
            assert_eq!(answer.header("micro-error"), Some("M1013"));
            assert_eq!(answer.header("micro-node"), Some("there"));
        }
        assert_eq!(drain.in_flight(), 1);
        send.send_data(common::grpc::message(b"last"), true).unwrap();
        let mut body = response.into_body();
        assert_eq!(Reader::default().next(&mut body).await.unwrap(), "last");
        while soon(body.data()).await.is_some() {}
        soon(drain.idle()).await;
    }
}
