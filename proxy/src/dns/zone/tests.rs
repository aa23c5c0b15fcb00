use proptest::prelude::*;

use super::*;

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn asked(name: &str, kind: RecordType) -> Message {
    let routes = Routes::empty(proto::NodeId::from_bytes([1; 32]));
    answer(&question(name, kind), &routes, &Nowhere)
}

#[test]
fn questions_are_ours_by_whole_labels() {
    for (name, ours) in [
        ("micro.internal.", true),
        ("Shop.MICRO.internal.", true),
        ("xmicro.internal.", false),
        ("micro.internal.example.", false),
        ("internal.", false),
        ("9.8.64.127.in-addr.arpa.", true),
        ("1.0.0.127.in-addr.arpa.", false),
        (".", false),
    ] {
        let bytes = question(name, RecordType::A).to_vec().unwrap();
        assert_eq!(matches!(read(&bytes), Whose::Zone(_)), ours, "{name}");
    }
    let answer = asked("micro.internal.", RecordType::SOA).to_vec().unwrap();
    assert!(matches!(read(&answer), Whose::Nobody), "an answer is no question");
}

#[test]
fn the_zone_is_there_and_names_in_it_are_not_without_services() {
    let soa = asked("micro.internal.", RecordType::SOA);
    assert_eq!((soa.metadata.response_code, soa.answers.len()), (ResponseCode::NoError, 1));
    assert_eq!(asked("micro.internal.", RecordType::NS).answers.len(), 1);
    let none = asked("shop.micro.internal.", RecordType::A);
    assert_eq!(none.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(none.authorities.len(), 1, "how long that may be remembered");
}

proptest! {
    #[test]
    fn no_bytes_make_it_fail(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let routes = Routes::empty(proto::NodeId::from_bytes([1; 32]));
        if let Whose::Zone(message) = read(&bytes) {
            let out = answer(&message, &routes, &Nowhere);
            let written = write(&out, &message, true);
            prop_assert!(written.is_none_or(|bytes| bytes.len() <= usize::from(MAX_UDP)));
        }
        let _ = failed(&bytes, ResponseCode::ServFail);
    }
}
