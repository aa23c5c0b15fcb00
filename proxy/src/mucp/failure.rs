//! Errors: the JSON of go-micro in a header, and a gRPC status with its details (contract, gRPC v2,
//! errors). What both can say comes back as it was.

use http::{HeaderMap, HeaderValue, StatusCode};
use prost::Message as _;
use proto::micro::errors;
use serde_json::Value;

use crate::answer;

/// How a stream ends that did not fail (contract, headers 4.2).
pub(crate) const END_OF_STREAM: &str = "EOS";
/// Who speaks where a service sent a status and no more, as go-micro's own client says it.
const NAMELESS: &str = "go.micro.client";
/// go-micro's codes and the status of gRPC that each is sent with.
const CODES: [(u16, u8); 11] = [
    (400, 3),
    (401, 16),
    (403, 7),
    (404, 5),
    (408, 4),
    (409, 6),
    (412, 9),
    (500, 13),
    (501, 12),
    (503, 14),
    // No code of go-micro's table, but what HTTP calls it.
    (429, 8),
];

/// The trailers of gRPC that say the error of a MUCP message.
#[must_use]
pub fn to_grpc(error: &[u8]) -> HeaderMap {
    let text = String::from_utf8_lossy(error);
    let mut trailers = HeaderMap::with_capacity(3);
    let json = Json::parse(&text);
    let status = match &json {
        Some(json) => CODES.iter().find(|(code, _)| *code == json.code).map_or(2, |row| row.1),
        // Of unknown kind, as go-micro sends a plain text: UNKNOWN.
        None => 2,
    };
    trailers.insert("grpc-status", HeaderValue::from(u16::from(status)));
    if let Ok(message) = HeaderValue::try_from(answer::percent(&text)) {
        trailers.insert("grpc-message", message);
    }
    if let Some(Json { id, code, detail, status: reason }) = json {
        let details = answer::details(status, &text, &id, code, &detail, &reason);
        let details = data_encoding::BASE64_NOPAD.encode(&details);
        if let Ok(details) = HeaderValue::try_from(details) {
            trailers.insert("grpc-status-details-bin", details);
        }
    }
    trailers
}

/// The error that trailers of gRPC say, as a header of MUCP; `None` where they say that all is well.
/// No status at all is an error, too.
#[must_use]
pub fn to_mucp(trailers: &HeaderMap) -> Option<HeaderValue> {
    let text = |name| trailers.get(name).and_then(|value| value.to_str().ok());
    let status = text("grpc-status").and_then(|status| status.parse::<u8>().ok());
    if status == Some(0) {
        return None;
    }
    let message = unescape(text("grpc-message").unwrap_or_default());
    let details = text("grpc-status-details-bin").and_then(of_details);
    if let Some(json) = details.or_else(|| Json::parse(&message).map(|_| message.clone())) {
        return Some(header(&json));
    }
    let code = CODES.iter().find(|(_, of)| Some(*of) == status).map_or(500, |row| row.0);
    Some(new(NAMELESS, code, &message))
}

/// An error of ours.
pub(crate) fn new(id: &str, code: u16, detail: &str) -> HeaderValue {
    let reason = StatusCode::from_u16(code).ok().and_then(|code| code.canonical_reason());
    let status = reason.unwrap_or_default();
    header(&json(id, i32::from(code), detail, status))
}

/// The error itself, out of `google.rpc.Status`, if it is one of go-micro.
fn of_details(base64: &str) -> Option<String> {
    /// `google.rpc.Status`, of which only the details count.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Status {
        #[prost(message, repeated, tag = "3")]
        details: Vec<prost_types::Any>,
    }
    let base64 = base64.trim_end_matches('=');
    let bytes = data_encoding::BASE64_NOPAD.decode(base64.as_bytes()).ok()?;
    let any = Status::decode(&bytes[..]).ok()?.details.into_iter().next()?;
    if !any.type_url.ends_with("/errors.Error") {
        return None;
    }
    let errors::Error { id, code, detail, status } = errors::Error::decode(&any.value[..]).ok()?;
    Some(json(&id, code, &detail, &status))
}

/// In the order in which go-micro writes it.
fn json(id: &str, code: i32, detail: &str, status: &str) -> String {
    let text = |text: &str| Value::from(text).to_string();
    format!(
        r#"{{"id":{},"code":{code},"detail":{},"status":{}}}"#,
        text(id),
        text(detail),
        text(status)
    )
}

/// An error of go-micro. Those without a code are none: any JSON would be.
struct Json {
    id: String,
    code: u16,
    detail: String,
    status: String,
}

impl Json {
    fn parse(text: &str) -> Option<Self> {
        let Ok(Value::Object(fields)) = serde_json::from_str(text) else { return None };
        let of = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
        let code = fields.get("code").and_then(Value::as_u64);
        let code = code.and_then(|code| u16::try_from(code).ok()).filter(|code| *code > 0)?;
        let (id, detail, status) = (of("id"), of("detail"), of("status"));
        Some(Self { id: id.into(), code, detail: detail.into(), status: status.into() })
    }
}

/// JSON as the text of a header: what a header cannot hold is escaped within its strings.
fn header(json: &str) -> HeaderValue {
    let plain = |byte: u8| matches!(byte, b' '..=b'~');
    let text = if json.bytes().all(plain) {
        json.to_owned()
    } else {
        // Written anew, so that everything odd is within strings.
        let json = serde_json::from_str::<Value>(json)
            .map_or_else(|_| json.to_owned(), |value| value.to_string());
        let mut out = String::with_capacity(json.len() + 16);
        for unit in json.encode_utf16() {
            match u8::try_from(unit).ok().filter(|byte| plain(*byte)) {
                Some(byte) => out.push(char::from(byte)),
                None => out.push_str(&format!("\\u{unit:04x}")),
            }
        }
        out
    };
    HeaderValue::try_from(text).expect("printable ASCII is a header value")
}

/// Undoes the percent-encoding of `grpc-message`; what is not encoded stays (gRPC over HTTP/2,
/// "Status-Message").
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        let hex = text.get(at + 1..at + 3).filter(|_| byte == b'%');
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) => {
                out.push(decoded);
                at += 3;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(value: &HeaderValue) -> Value {
        serde_json::from_slice(value.as_bytes()).unwrap()
    }

    #[test]
    fn an_error_of_go_micro_comes_back_as_it_was() {
        let sent = r#"{"id":"go.micro.srv.greeter.say","code":403,"detail":"no greeting","status":"Forbidden"}"#;
        let trailers = to_grpc(sent.as_bytes());
        assert_eq!(trailers["grpc-status"], "7");
        assert_eq!(trailers["grpc-message"], sent);
        assert_eq!(to_mucp(&trailers).unwrap(), sent);
        // The details alone are enough, and so is the message.
        for name in ["grpc-message", "grpc-status-details-bin"] {
            let mut some = trailers.clone();
            some.remove(name);
            assert_eq!(to_mucp(&some).unwrap(), sent, "without {name}");
        }
    }

    #[test]
    fn codes_have_the_status_of_the_contract() {
        for (code, status) in [
            (400, "3"),
            (401, "16"),
            (403, "7"),
            (404, "5"),
            (408, "4"),
            (409, "6"),
            (412, "9"),
            (500, "13"),
            (501, "12"),
            (503, "14"),
            (418, "2"),
            (999, "2"),
        ] {
            let trailers = to_grpc(json("a", code, "b", "c").as_bytes());
            assert_eq!(trailers["grpc-status"], status, "{code}");
            assert_eq!(parsed(&to_mucp(&trailers).unwrap())["code"], code);
        }
    }

    #[test]
    fn a_plain_text_stays_one() {
        let trailers = to_grpc("rpc: can't find service Säy".as_bytes());
        assert_eq!(trailers["grpc-status"], "2");
        assert!(!trailers.contains_key("grpc-status-details-bin"));
        let back = parsed(&to_mucp(&trailers).unwrap());
        assert_eq!((back["code"].as_u64(), back["id"].as_str()), (Some(500), Some(NAMELESS)));
        assert_eq!(back["detail"], "rpc: can't find service Säy");
    }

    #[test]
    fn a_status_of_a_program_that_is_not_go_micro_becomes_its_code() {
        for (status, code) in
            [("5", 404), ("14", 503), ("8", 429), ("2", 500), ("77", 500), ("x", 500)]
        {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static(status));
            trailers.insert("grpc-message", HeaderValue::from_static("50%25 of%0A%C3%84 %zz"));
            let error = parsed(&to_mucp(&trailers).unwrap());
            assert_eq!(error["code"], code);
            assert_eq!(error["detail"], "50% of\nÄ %zz");
        }
        let ok = [("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))];
        assert_eq!(to_mucp(&ok.into_iter().collect()), None);
        assert!(to_mucp(&HeaderMap::new()).is_some(), "an answer without a status is none");
    }

    proptest! {
        #[test]
        fn any_error_comes_back_with_all_its_fields(
            id in ".{0,20}", code in 1_u16..1000, detail in ".{0,40}", status in ".{0,20}",
        ) {
            let sent = header(&json(&id, i32::from(code), &detail, &status));
            let back = parsed(&to_mucp(&to_grpc(sent.as_bytes())).unwrap());
            prop_assert_eq!(&back["id"], &id);
            prop_assert_eq!(&back["code"], code);
            prop_assert_eq!(&back["detail"], &detail);
            prop_assert_eq!(&back["status"], &status);
        }

        #[test]
        fn any_bytes_are_some_error(bytes: Vec<u8>) {
            prop_assert!(to_mucp(&to_grpc(&bytes)).is_some());
        }
    }
}
