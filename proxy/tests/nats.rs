//! What clients of NATS may say, and what they are told: byte for byte, good and bad.

#![allow(unreachable_pub, reason = "a module of a test is reachable from nowhere else")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::World;
use proxy::nats::{Face, Login, user_text};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tunnel::Keypair;

struct Client {
    stream: TcpStream,
    come: Vec<u8>,
    info: String,
}

impl Client {
    async fn connect(at: SocketAddr) -> Self {
        let stream = TcpStream::connect(at).await.unwrap();
        let mut client = Self { stream, come: Vec::new(), info: String::new() };
        let info = client.until("\r\n").await;
        client.info.clone_from(&info);
        assert!(info.starts_with("INFO {") && info.contains("\"headers\":true"), "{info}");
        client
    }

    async fn say(&mut self, text: impl AsRef<[u8]>) {
        self.stream.write_all(text.as_ref()).await.unwrap();
    }

    /// What comes up to and with `end`.
    async fn until(&mut self, end: &str) -> String {
        loop {
            let text = String::from_utf8_lossy(&self.come).into_owned();
            if let Some(at) = text.find(end) {
                self.come.drain(..at + end.len());
                return text[..at + end.len()].to_owned();
            }
            let read = self.stream.read_buf(&mut self.come);
            let read = tokio::time::timeout(Duration::from_secs(30), read).await;
            let read = read.unwrap_or_else(|_| panic!("no {end:?} after {text:?}")).unwrap();
            assert!(read > 0, "closed before {end:?}, after {text:?}");
        }
    }

    /// What is answered to `text`, up to the answer to a ping.
    async fn asks(&mut self, text: &str) -> String {
        self.say(format!("{text}PING\r\n")).await;
        let answer = self.until("PONG\r\n").await;
        answer.trim_end_matches("PONG\r\n").to_owned()
    }

    /// The last words before the connection is closed.
    async fn last_words(mut self) -> String {
        let read = self.stream.read_to_end(&mut self.come);
        tokio::time::timeout(Duration::from_secs(30), read).await.expect("it is closed").ok();
        String::from_utf8_lossy(&self.come).into_owned()
    }
}

async fn listens(world: &World) -> SocketAddr {
    listens_for(world, Login::default()).await
}

async fn listens_for(world: &World, login: Login) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let proxy = world.here.proxy.clone();
    tokio::spawn(async move { proxy.nats(listener, Face { login, ..Face::default() }).await });
    at
}

#[tokio::test]
async fn messages_come_as_nats_writes_them() {
    let world = World::new().await;
    let at = listens(&world).await;
    let mut client = Client::connect(at).await;
    let got = client
        .asks(
            "CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB a.* 7\r\nPUB a.b r.1 2\r\nhi\r\n",
        )
        .await;
    assert_eq!(got, "MSG a.b 7 r.1 2\r\nhi\r\n");
    let got = client.asks("HPUB a.c 18 20\r\nNATS/1.0\r\nX: 1\r\n\r\nhi\r\n").await;
    assert_eq!(got, "HMSG a.c 7 18 20\r\nNATS/1.0\r\nX: 1\r\n\r\nhi\r\n");
    assert_eq!(client.asks("UNSUB 7 4\r\nPUB a.d 0\r\n\r\n").await, "MSG a.d 7 0\r\n\r\n");
    assert_eq!(client.asks("PUB a.d 0\r\n\r\nPUB a.d 0\r\n\r\n").await, "MSG a.d 7 0\r\n\r\n");
}

#[tokio::test]
async fn verbose_clients_are_told_ok_and_those_without_echo_do_not_hear_themselves() {
    let world = World::new().await;
    let at = listens(&world).await;
    let mut client = Client::connect(at).await;
    let said = "CONNECT {\"verbose\":true,\"echo\":false}\r\nSUB a 1\r\nPUB a 1\r\nx\r\n";
    assert_eq!(client.asks(said).await, "+OK\r\n+OK\r\n+OK\r\n");
}

#[tokio::test]
async fn pedantic_clients_are_told_what_all_are_told() {
    let world = World::new().await;
    let at = listens(&world).await;
    let mut client = Client::connect(at).await;
    let said = "CONNECT {\"verbose\":true,\"pedantic\":true}\r\nSUB a.> 1\r\nPUB a.* 1\r\nx\r\n";
    let told = "+OK\r\n+OK\r\n-ERR 'Invalid Publish Subject'\r\n";
    assert_eq!(client.asks(said).await, told);
}

#[tokio::test]
async fn a_client_with_the_token_is_let_in_and_others_are_told_why_not() {
    let world = World::new().await;
    let at = listens_for(&world, Login::new(["s3cret"], Vec::new())).await;
    let mut client = Client::connect(at).await;
    assert!(client.info.contains("\"auth_required\":true"), "{}", client.info);
    let said = "CONNECT {\"auth_token\":\"s3cret\",\"verbose\":true}\r\nSUB a 1\r\n";
    assert_eq!(client.asks(said).await, "+OK\r\n+OK\r\n");
    for said in [
        "CONNECT {\"auth_token\":\"s3cre\"}\r\n",
        "CONNECT {\"user\":\"s3cret\",\"pass\":\"s3cret\"}\r\n",
        "CONNECT {}\r\n",
        "CONNECT nonsense\r\n",
        "PING\r\n",
        "SUB > 1\r\n",
        // Refused before its payload has come.
        "PUB a 8388608\r\n",
    ] {
        let mut stranger = Client::connect(at).await;
        stranger.say(said).await;
        assert_eq!(stranger.last_words().await, "-ERR 'Authorization Violation'\r\n", "{said:?}");
    }
    assert_eq!(client.asks("PUB a 2\r\nhi\r\n").await, "MSG a 1 2\r\nhi\r\n+OK\r\n");
}

#[tokio::test]
async fn the_holder_of_a_listed_key_is_let_in_by_signing_the_nonce() {
    use data_encoding::BASE64URL_NOPAD;
    use proto::sign::Sign as _;
    let world = World::new().await;
    let (user, stranger) = (Keypair::from_seed([1; 32]), Keypair::from_seed([2; 32]));
    let at = listens_for(&world, Login::new([], vec![user.public_key()])).await;
    let said = |client: &Client, pair: &Keypair| {
        let info: serde_json::Value = serde_json::from_str(&client.info[5..]).unwrap();
        let signed = pair.sign(info["nonce"].as_str().unwrap().as_bytes());
        let sig = BASE64URL_NOPAD.encode(signed.as_bytes());
        let nkey = user_text(&pair.public_key());
        format!("CONNECT {{\"nkey\":\"{nkey}\",\"sig\":\"{sig}\"}}\r\n")
    };
    let mut client = Client::connect(at).await;
    let good = said(&client, &user);
    assert_eq!(client.asks(&good).await, "", "it may ping");
    for again in [false, true] {
        let mut other = Client::connect(at).await;
        // What was signed for another connection is of no use here.
        let said = if again { good.clone() } else { said(&other, &stranger) };
        other.say(said).await;
        assert_eq!(other.last_words().await, "-ERR 'Authorization Violation'\r\n");
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_say_who_it_is_has_to_go() {
    let world = World::new().await;
    let at = listens_for(&world, Login::new(["s3cret"], Vec::new())).await;
    let client = Client::connect(at).await;
    assert_eq!(client.last_words().await, "-ERR 'Authentication Timeout'\r\n");
}

#[tokio::test]
async fn who_asks_where_nobody_listens_is_told_at_once() {
    let world = World::new().await;
    let at = listens(&world).await;
    let mut client = Client::connect(at).await;
    client.asks("CONNECT {\"no_responders\":true,\"headers\":true}\r\nSUB _INBOX.1.* 9\r\n").await;
    let got = client.asks("PUB nobody _INBOX.1.2 1\r\nx\r\n").await;
    assert_eq!(got, "HMSG _INBOX.1.2 9 16 16\r\nNATS/1.0 503\r\n\r\n\r\n");
}

#[tokio::test]
async fn what_is_no_topic_is_refused_and_the_client_stays() {
    let world = World::new().await;
    let at = listens(&world).await;
    let mut client = Client::connect(at).await;
    for (said, answer) in [
        ("PUB a..b 1\r\nx\r\n", "-ERR 'Invalid Publish Subject'\r\n"),
        ("PUB a.* 1\r\nx\r\n", "-ERR 'Invalid Publish Subject'\r\n"),
        ("PUB a b. 1\r\nx\r\n", "-ERR 'Invalid Reply Subject'\r\n"),
        ("SUB a.>.b 1\r\n", "-ERR 'Invalid Subject'\r\n"),
        ("HPUB a 12 12\r\nHTTP/1.1\r\n\r\n\r\n", "-ERR 'Invalid Headers'\r\n"),
    ] {
        assert_eq!(client.asks(said).await, answer, "{said:?}");
    }
}

#[tokio::test]
async fn what_is_no_command_ends_the_connection_with_a_reason() {
    let world = World::new().await;
    let at = listens(&world).await;
    let long = format!("SUB {} 1\r\n", "x".repeat(64 * 1024));
    for (said, answer) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "-ERR 'Unknown Protocol Operation'\r\n"),
        ("PUB a 9999999\r\nx", "-ERR 'Maximum Payload Violation'\r\n"),
        ("PUB a b c d\r\n", "-ERR 'Parser Error'\r\n"),
        ("CONNECT nonsense\r\n", "-ERR 'Parser Error'\r\n"),
        (&long, "-ERR 'maximum control line exceeded'\r\n"),
    ] {
        let mut client = Client::connect(at).await;
        client.say(said).await;
        let words = client.last_words().await;
        assert_eq!(words, answer, "{said:.20}");
    }
}

#[tokio::test]
async fn a_hundred_thousand_subscriptions_are_bounded_and_hurt_nobody() {
    let world = World::new().await;
    let at = listens(&world).await;
    let mut greedy = Client::connect(at).await;
    let mut text = String::new();
    for n in 0..100_000 {
        text.push_str(&format!("SUB greedy.{n} {n}\r\n"));
    }
    let (mut read, mut write) = greedy.stream.split();
    let said = async {
        write.write_all(text.as_bytes()).await.unwrap();
        write.write_all(b"PING\r\n").await.unwrap();
    };
    let heard = async {
        let mut come = Vec::new();
        while !come.ends_with(b"PONG\r\n") {
            assert!(read.read_buf(&mut come).await.unwrap() > 0);
        }
        String::from_utf8(come).unwrap()
    };
    let ((), heard) = tokio::join!(said, heard);
    assert!(heard.starts_with("-ERR 'maximum subscriptions exceeded'\r\n"));
    let mut other = Client::connect(at).await;
    assert_eq!(other.asks("PUB greedy.1 1\r\nx\r\n").await, "");
    drop(greedy);
    // With its client the room comes back.
    loop {
        let got = other.asks("SUB mine 1\r\n").await;
        if got.is_empty() {
            break;
        }
        other.asks("UNSUB 1\r\n").await;
    }
    assert_eq!(other.asks("PUB mine 1\r\nx\r\n").await, "MSG mine 1 1\r\nx\r\n");
}

#[tokio::test]
async fn a_subscriber_that_never_reads_costs_the_others_nothing_but_a_moment() {
    let world = World::new().await;
    let at = listens(&world).await;
    let mut asleep = Client::connect(at).await;
    asleep.asks("SUB flood 1\r\n").await;
    let mut awake = Client::connect(at).await;
    awake.asks("SUB flood 1\r\n").await;
    let payload = "x".repeat(16 * 1024);
    let mut publisher = Client::connect(at).await;
    for _ in 0..50 {
        let batch = format!("PUB flood {}\r\n{payload}\r\n", payload.len()).repeat(50);
        assert_eq!(publisher.asks(&batch).await, "");
        awake.say("PING\r\n").await;
        let heard = awake.until("PONG\r\n").await;
        awake.come.clear();
        assert!(heard.contains("MSG flood 1 16384"), "{} bytes", heard.len());
    }
}
