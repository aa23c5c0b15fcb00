//! Who gets in, and who does not: tickets, grants, and what strangers may do.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that fails says so"
)]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{Ground, Net, Node, SOON, call, exchange, mirror, pattern};
use proto::grant::Role;
use proto::join::Refusal;
use proto::ticket::Secret;
use proto::{Roles, Ticket, UnixTime};
use tunnel::config::wall;
use tunnel::counters::Handshake;
use tunnel::issuer::Template;
use tunnel::join::{self, JoinError};
use tunnel::{AskError, Close, Config, DialError, Event, Gone, Keypair, OpenError};

/// Seconds that the wall clock of the next tests is ahead. One static each: they run at once.
macro_rules! wall_clock {
    ($ahead:ident, $clock:ident) => {
        static $ahead: AtomicU64 = AtomicU64::new(0);
        fn $clock() -> UnixTime {
            wall().plus($ahead.load(Ordering::Relaxed))
        }
    };
}

fn ticket(net: &Net, issuing: &Node, uses: u32) -> Ticket {
    let seeds = vec![issuing.address.to_string()];
    net.desk.invite(Template::member(), 900, uses, seeds, wall()).unwrap()
}

fn refusal(joined: Result<proto::Credential, JoinError>) -> Refusal {
    match joined {
        Err(JoinError::Refused(refusal)) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[tokio::test]
async fn a_ticket_makes_a_member_that_can_call_and_be_called() {
    let net = Net::quic();
    let issuing = net.issuing().await;
    let ticket = ticket(&net, &issuing, 1);
    let key = Arc::new(Keypair::generate());
    let credential = join::redeem(&ticket, &key, "laptop").await.unwrap();
    assert_eq!(credential.node(), key.node());
    assert_eq!(net.desk.members().iter().filter(|member| member.name == "laptop").count(), 1);

    let joined = net.start(net.config(key, credential)).await;
    let (joined_id, issuing_id) = (joined.id, issuing.id);
    tokio::spawn(mirror(issuing.incoming));
    tokio::spawn(mirror(joined.incoming));
    assert_eq!(exchange(&joined.tunnel, issuing_id, pattern(100)).await, pattern(100));
    assert_eq!(exchange(&issuing.tunnel, joined_id, pattern(100)).await, pattern(100));
}

#[tokio::test]
async fn a_used_ticket_is_refused_to_others_and_given_again_to_who_used_it() {
    let net = Net::quic();
    let issuing = net.issuing().await;
    let ticket = ticket(&net, &issuing, 1);
    let (first, second) = (Keypair::generate(), Keypair::generate());
    let granted = join::redeem(&ticket, &first, "first").await.unwrap();
    let again = join::redeem(&ticket, &first, "first").await.unwrap();
    assert_eq!(granted, again);
    assert_eq!(refusal(join::redeem(&ticket, &second, "second").await), Refusal::Spent);
}

#[tokio::test]
async fn of_64_at_once_one_becomes_a_member() {
    let net = Net::quic();
    let issuing = net.issuing().await;
    let ticket = ticket(&net, &issuing, 1);
    let before = net.desk.members().len();
    let joins = (0..64).map(|_| {
        let ticket = ticket.clone();
        async move { join::redeem(&ticket, &Keypair::generate(), "one of many").await }
    });
    let joined = futures_util::future::join_all(joins).await;
    assert_eq!(joined.iter().filter(|joined| joined.is_ok()).count(), 1);
    assert_eq!(net.desk.members().len(), before + 1);
}

#[tokio::test]
async fn a_ticket_that_is_over_is_refused_by_both_ends() {
    let net = Net::quic();
    let issuing = net.issuing().await;
    let mut ticket = net
        .desk
        .invite(Template::member(), 0, 1, vec![issuing.address.to_string()], wall())
        .unwrap();
    let key = Keypair::generate();
    assert!(matches!(join::redeem(&ticket, &key, "late").await, Err(JoinError::Expired)));
    // A joiner whose clock is late asks, and is told.
    ticket.expires = wall().plus(60);
    assert_eq!(refusal(join::redeem(&ticket, &key, "late").await), Refusal::Expired);
}

#[tokio::test]
async fn an_altered_secret_or_number_is_unknown() {
    let net = Net::quic();
    let issuing = net.issuing().await;
    let good = ticket(&net, &issuing, 1);
    let key = Keypair::generate();
    let mut altered = good.clone();
    altered.secret = Secret([1; 32]);
    assert_eq!(refusal(join::redeem(&altered, &key, "x").await), Refusal::Unknown);
    let mut altered = good.clone();
    altered.id.0[0] ^= 1;
    assert_eq!(refusal(join::redeem(&altered, &key, "x").await), Refusal::Unknown);
    assert!(join::redeem(&good, &key, "x").await.is_ok());
}

#[tokio::test]
async fn a_ticket_of_another_network_says_nothing_to_who_answers() {
    let (net, other) = (Net::quic(), Net::quic());
    let issuing = net.issuing().await;
    let mut foreign = ticket(&net, &issuing, 1);
    foreign.network = other.id();
    let joined = join::redeem(&foreign, &Keypair::generate(), "x").await;
    assert!(matches!(joined, Err(JoinError::Stranger(Close::ForeignNetwork))), "{joined:?}");
}

#[tokio::test]
async fn a_node_that_is_not_the_issuer_is_not_asked() {
    let net = Net::quic();
    let (issuing, member) = (net.issuing().await, net.member().await);
    let mut ticket = ticket(&net, &issuing, 1);
    ticket.seeds = vec![member.address.to_string()];
    let joined = join::redeem(&ticket, &Keypair::generate(), "x").await;
    assert!(matches!(joined, Err(JoinError::Unreachable(DialError::WrongNode))), "{joined:?}");
    // The right one among wrong ones is found.
    ticket.seeds.push(issuing.address.to_string());
    assert!(join::redeem(&ticket, &Keypair::generate(), "x").await.is_ok());
}

#[tokio::test]
async fn tickets_and_members_outlive_the_desk() {
    let net = Net::quic();
    let issuing = net.issuing().await;
    let ticket = ticket(&net, &issuing, 1);
    let key = Keypair::generate();
    join::redeem(&ticket, &key, "x").await.unwrap();
    let desk = tunnel::Desk::open(
        net.issuer.clone(),
        Arc::clone(&net.key),
        "acme",
        net.key.node(),
        &net.ledger(),
    )
    .unwrap();
    assert_eq!(desk.list(), net.desk.list());
    assert_eq!(desk.members(), net.desk.members());
    assert_eq!(desk.list()[0].used_by, [key.node()]);
}

#[tokio::test]
async fn without_room_to_write_it_down_no_grant_is_given_and_the_ticket_stays_good() {
    let net = Net::quic();
    let issuing = net.issuing().await;
    let ticket = ticket(&net, &issuing, 1);
    // The ledger's directory is gone: nothing can be written.
    let (directory, away) = (net.directory.path(), net.directory.path().with_extension("away"));
    std::fs::rename(directory, &away).unwrap();
    let key = Keypair::generate();
    assert_eq!(refusal(join::redeem(&ticket, &key, "x").await), Refusal::Unavailable);
    std::fs::rename(&away, directory).unwrap();
    assert!(join::redeem(&ticket, &key, "x").await.is_ok());
}

#[tokio::test]
async fn a_damaged_ledger_is_named_and_not_begun_anew() {
    let net = Net::quic();
    net.grant(&Keypair::generate(), 60);
    let mut bytes = std::fs::read(net.ledger()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(net.ledger(), bytes).unwrap();
    let (issuer, key) = (net.issuer.clone(), Arc::clone(&net.key));
    let node = key.node();
    let opened = tunnel::Desk::open(issuer, key, "acme", node, &net.ledger());
    assert!(opened.unwrap_err().to_string().contains("cannot be read"));
}

/// A call from `config`'s node to `far` fails, and for this reason.
async fn refused_as(net: &Net, config: Config, far: &Node) -> DialError {
    let near = net.start(config).await;
    match near.tunnel.open(far.id, &call()).await {
        Err(OpenError::Unreachable(why)) => why,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[tokio::test]
async fn members_of_another_network_are_refused_by_both_ends() {
    let (net, other) = (Net::quic(), Net::quic());
    let far = net.member().await;
    let mut config = other.member_config();
    config.book = net.member_config().book;
    let why = refused_as(&other, config.clone(), &far).await;
    assert_eq!(why, DialError::Refused(Close::ForeignNetwork));
    // One who claims to be of this network with the other's grant.
    config.network = net.id();
    let why = refused_as(&other, config, &far).await;
    assert_eq!(why, DialError::Refused(Close::ForeignNetwork));
}

#[tokio::test]
async fn a_stolen_grant_is_worth_nothing() {
    let net = Net::quic();
    let far = net.member().await;
    let stolen = net.grant(&Keypair::generate(), 3600);
    let config = net.config(Arc::new(Keypair::generate()), stolen);
    let why = refused_as(&net, config, &far).await;
    assert_eq!(why, DialError::Refused(Close::ForeignNode));
}

#[tokio::test]
async fn an_expired_grant_is_refused() {
    let net = Net::quic();
    let far = net.member().await;
    let key = Arc::new(Keypair::generate());
    let over = net.grant(&key, 0);
    let why = refused_as(&net, net.config(key, over), &far).await;
    assert_eq!(why, DialError::Refused(Close::Expired));
}

#[tokio::test]
async fn a_member_that_dials_refuses_an_answer_with_an_expired_grant() {
    let net = Net::quic();
    let key = Arc::new(Keypair::generate());
    let over = net.grant(&key, 0);
    let far = net.start(net.config(key, over)).await;
    let why = refused_as(&net, net.member_config(), &far).await;
    assert_eq!(why, DialError::Unacceptable(Close::Expired));
}

#[tokio::test]
async fn a_member_gets_a_newer_grant_from_its_issuer_and_from_nobody_else() {
    let net = Net::quic();
    wall_clock!(AHEAD, clock);
    let credential = net.grant(&net.key, 3600);
    let mut config = net.config(Arc::clone(&net.key), credential);
    config.desk = Some(Arc::clone(&net.desk));
    config.limits.wall = clock;
    let issuing = net.start(config).await;
    let mut config = net.member_config();
    config.limits.wall = clock;
    let (other, member) = (net.member().await, net.start(config).await);
    let held = member.config.credential.load_full();
    assert_eq!(member.tunnel.renew(issuing.id).await.as_ref(), Ok(&*held), "it is new");
    AHEAD.store(1200, Ordering::Relaxed);
    let newer = member.tunnel.renew(issuing.id).await.unwrap();
    assert!(newer.grant().serial > held.grant().serial);
    let refused = member.tunnel.renew(other.id).await;
    assert_eq!(refused, Err(AskError::Refused(Refusal::NotAnIssuer)));
    net.desk.dismiss(member.id).unwrap();
    let refused = member.tunnel.renew(issuing.id).await;
    assert_eq!(refused, Err(AskError::Refused(Refusal::NotRenewed)));
}

#[tokio::test(start_paused = true)]
async fn a_link_ends_with_the_grant_of_its_peer_unless_a_newer_one_is_shown() {
    wall_clock!(AHEAD, clock);
    for renews in [true, false] {
        AHEAD.store(0, Ordering::Relaxed);
        let net = Net::new(Ground::Memory(tunnel::memory::Hub::default()));
        let mut far_config = net.member_config();
        far_config.limits.wall = clock;
        let mut far = net.start(far_config).await;
        let key = Arc::new(Keypair::generate());
        let short = net.grant(&key, 30);
        let mut config = net.config(Arc::clone(&key), short);
        config.limits.wall = clock;
        let near = net.start(config).await;
        near.control.dial(far.id);
        let link = far.event(|event| match event {
            Event::Up { link, .. } => Some(link),
            _ => None,
        });
        let link = link.await;
        if renews {
            near.config.credential.store(Arc::new(net.grant(&key, 3600)));
        }
        AHEAD.store(29, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(29)).await;
        assert_eq!(far.tunnel.links().len(), 1);
        AHEAD.store(40, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert_eq!(far.tunnel.links().len(), usize::from(renews), "renewed: {renews}");
        if !renews {
            let down = far.event(|event| match event {
                Event::Down(down, gone) => Some((down, gone)),
                _ => None,
            });
            assert_eq!(down.await, (link, Gone::Here(Close::Expired)));
        }
    }
}

#[tokio::test]
async fn roles_and_names_of_a_ticket_are_those_of_the_grant() {
    let net = Net::quic();
    let issuing = net.issuing().await;
    let template = Template { roles: Roles::NONE.with(Role::Relay), ..Template::member() };
    let seeds = vec![issuing.address.to_string()];
    let ticket = net.desk.invite(template.clone(), 900, 1, seeds, wall()).unwrap();
    let credential = join::redeem(&ticket, &Keypair::generate(), "x").await.unwrap();
    assert_eq!(credential.grant().roles, template.roles);
    assert_eq!(credential.grant().services, template.services);
    assert_eq!(credential.grant().network_name, "acme");
}

#[tokio::test]
async fn a_withdrawn_ticket_is_unknown() {
    let net = Net::quic();
    let issuing = net.issuing().await;
    let ticket = ticket(&net, &issuing, 1);
    assert!(net.desk.withdraw(ticket.id).unwrap());
    let joined = join::redeem(&ticket, &Keypair::generate(), "x").await;
    assert_eq!(refusal(joined), Refusal::Unknown);
}

#[test]
fn a_key_is_made_once_and_refused_when_others_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    let made = Keypair::load_or_create(&path).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(Keypair::load_or_create(&path).unwrap().node(), made.node());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(Keypair::load_or_create(&path).unwrap_err().to_string().contains("0600"));
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(Keypair::load_or_create(&link).is_err());
}

/// Whether `address` still takes members within [`SOON`].
async fn still_serves(net: &Net, far: &Node) {
    let near = net.member().await;
    let echo = near.tunnel.echo(far.id, pattern(10));
    tokio::time::timeout(SOON, echo).await.unwrap().unwrap();
}

#[tokio::test]
async fn garbage_at_the_port_hurts_nobody() {
    let net = Net::quic();
    let far = net.member().await;
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for length in 0..1200 {
        let mut junk = pattern(length).to_vec();
        if let Some(first) = junk.first_mut() {
            // Half of them look like the beginning of a connection.
            *first = if length % 2 == 0 { 0xc3 } else { 0x41 };
        }
        socket.send_to(&junk, far.address).await.unwrap();
    }
    still_serves(&net, &far).await;
}

#[tokio::test]
async fn more_strangers_than_may_be_are_turned_away_and_members_get_in_afterwards() {
    let net = Net::quic();
    let mut config = net.member_config();
    config.limits.strangers = 16;
    config.limits.greeting = Duration::from_millis(500);
    let far = net.start(config).await;
    let silent: Vec<_> = (0..200).map(|_| strangers::Silent::connect(far.address)).collect();
    let connected = futures_util::future::join_all(silent).await;
    let handshakes = &far.tunnel.counters().handshakes;
    let (refused, retried) = (handshakes.get(Handshake::Full), handshakes.get(Handshake::Retried));
    assert!(refused > 0 && retried > 0, "refused {refused}, retried {retried}");
    // Whoever was let in and said nothing is sent away.
    let closes = futures_util::future::join_all(
        connected.into_iter().flatten().map(strangers::Silent::closed),
    );
    let closes = tokio::time::timeout(SOON, closes).await.unwrap();
    assert!(!closes.is_empty());
    assert!(closes.iter().all(|close| *close == Some(Close::Slow.to_wire())), "{closes:?}");
    still_serves(&net, &far).await;
}

#[tokio::test]
async fn a_hello_that_is_none_ends_the_connection_with_the_reason() {
    let net = Net::quic();
    let mut config = net.member_config();
    config.limits.greeting = Duration::from_millis(500);
    let far = net.start(config).await;
    let oversized = [1, 0x80, 0x01, 0x00, 0x01];
    let ends = [0x40, 0x00];
    let unknown_critical = [0x40, 0x40, 0x00];
    let not_a_hello = [6, 0];
    let half = [1, 0x40, 0x80, 1];
    for (said, expected) in [
        (&oversized[..], Close::Protocol),
        (&unknown_critical[..], Close::Protocol),
        (&not_a_hello[..], Close::Protocol),
        (&half[..], Close::Slow),
        (&ends[..], Close::Slow),
        (&[][..], Close::Slow),
    ] {
        let stranger = strangers::Silent::connect(far.address).await.unwrap();
        stranger.say(said).await;
        let close = tokio::time::timeout(SOON, stranger.closed()).await.unwrap();
        assert_eq!(close, Some(expected.to_wire()), "{said:?}");
    }
    still_serves(&net, &far).await;
}

#[tokio::test]
async fn a_stranger_may_open_one_stream_and_no_other() {
    let net = Net::quic();
    let far = net.member().await;
    let stranger = strangers::Silent::connect(far.address).await.unwrap();
    assert_eq!(stranger.streams_at_once().await, 1);
}

mod strangers {
    //! QUIC without the protocol on top.

    use super::{Arc, Keypair, SocketAddr};
    use std::time::Duration;

    pub(crate) struct Silent(
        quinn::Connection,
        #[expect(dead_code, reason = "it drives the connection")] quinn::Endpoint,
    );

    impl Silent {
        pub(crate) async fn connect(address: SocketAddr) -> Option<Self> {
            let config = tunnel::quic::stranger(&Keypair::generate());
            let endpoint = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            let config = quinn::ClientConfig::new(Arc::new(config));
            let connecting = endpoint.connect_with(config, address, "micro").unwrap();
            Some(Self(connecting.await.ok()?, endpoint))
        }

        pub(crate) async fn say(&self, bytes: &[u8]) {
            let (mut send, recv) = self.0.open_bi().await.unwrap();
            send.write_all(bytes).await.unwrap();
            // Kept open: the end of the stream would say more.
            std::mem::forget((send, recv));
        }

        pub(crate) async fn closed(self) -> Option<u64> {
            match self.0.closed().await {
                quinn::ConnectionError::ApplicationClosed(closed) => {
                    Some(closed.error_code.into_inner())
                }
                _ => None,
            }
        }

        pub(crate) async fn streams_at_once(&self) -> usize {
            let mut streams = Vec::new();
            while let Ok(stream) =
                tokio::time::timeout(Duration::from_millis(300), self.0.open_bi()).await
            {
                streams.push(stream.unwrap());
            }
            streams.len()
        }
    }
}
