//! Why one of our services did not do what was asked, as go-micro and gRPC say it.

use std::fmt::Write;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use prost::Message;
use proto::micro::{TYPE_URL_PREFIX, errors};
use tonic::{Code, Status};

use crate::registrar::RegistrarError;

/// Which kind of failure: go-micro's code, the gRPC status it is sent with, and its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    Timeout,
    Conflict,
    TooLarge,
    TooMany,
    Internal,
    NotImplemented,
    Unavailable,
    Full,
}

impl Kind {
    /// go-micro v2's table (`errors` and `server/grpc`), and for codes it has no row for, the
    /// status that gRPC itself uses.
    const fn row(self) -> (i32, Code, &'static str) {
        match self {
            Self::BadRequest => (400, Code::InvalidArgument, "Bad Request"),
            Self::Unauthorized => (401, Code::Unauthenticated, "Unauthorized"),
            Self::Forbidden => (403, Code::PermissionDenied, "Forbidden"),
            Self::NotFound => (404, Code::NotFound, "Not Found"),
            Self::Timeout => (408, Code::DeadlineExceeded, "Request Timeout"),
            Self::Conflict => (409, Code::Aborted, "Conflict"),
            Self::TooLarge => (413, Code::ResourceExhausted, "Request Entity Too Large"),
            Self::TooMany => (429, Code::ResourceExhausted, "Too Many Requests"),
            Self::Internal => (500, Code::Internal, "Internal Server Error"),
            Self::NotImplemented => (501, Code::Unimplemented, "Not Implemented"),
            Self::Unavailable => (503, Code::Unavailable, "Service Unavailable"),
            Self::Full => (507, Code::ResourceExhausted, "Insufficient Storage"),
        }
    }
}

/// A failure, ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    status: Status,
    /// What it was made of, where it is one of go-micro.
    of: Option<(Kind, String)>,
}

/// `google.rpc.Status`, of which only the details are ours to fill.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

impl Failure {
    /// Whether it is of this kind.
    pub(super) fn is(&self, kind: Kind) -> bool {
        self.of.as_ref().is_some_and(|(of, _)| *of == kind)
    }

    /// As go-micro says it: the error as JSON in the message, and whole in the details.
    pub(super) fn new(service: &str, kind: Kind, detail: impl Into<String>) -> Self {
        let (code, status, text) = kind.row();
        let detail = detail.into();
        let json = serde_json::json!({
            "id": service, "code": code, "detail": detail, "status": text,
        });
        let of = Some((kind, detail.clone()));
        let error = errors::Error { id: service.to_owned(), code, detail, status: text.to_owned() };
        let details = RpcStatus {
            code: status as i32,
            message: json.to_string(),
            details: vec![prost_types::Any {
                type_url: format!("{TYPE_URL_PREFIX}errors.Error"),
                value: error.encode_to_vec(),
            }],
        };
        let details = Bytes::from(details.encode_to_vec());
        Self { status: Status::with_details(status, json.to_string(), details), of }
    }

    /// The same under another id.
    pub(super) fn named(&self, id: &str) -> Self {
        match &self.of {
            Some((kind, detail)) => Self::new(id, *kind, detail.clone()),
            None => self.clone(),
        }
    }

    /// As a gRPC library says it: where go-micro itself sends a plain text.
    pub(super) fn plain(code: Code, text: impl Into<String>) -> Self {
        Self { status: Status::new(code, text), of: None }
    }

    /// What the router's refusal of a registration means for the program.
    pub(super) fn of_registrar(service: &str, error: &RegistrarError) -> Self {
        let kind = match error {
            RegistrarError::Refused(_) => Kind::Forbidden,
            RegistrarError::TooMuch(_) => Kind::BadRequest,
            RegistrarError::NotFound => Kind::NotFound,
            RegistrarError::Unavailable => Kind::Unavailable,
        };
        Self::new(service, kind, error.to_string())
    }

    /// Adds `grpc-status`, `grpc-message` and `grpc-status-details-bin`.
    pub(super) fn put(&self, headers: &mut HeaderMap) {
        self.status
            .add_header(headers)
            .expect("a message is percent-encoded and details are base64, so both are header text");
        // Written as grpc-go writes it, readable on the wire, where tonic escapes blanks and quotes.
        headers.insert(tonic::Status::GRPC_MESSAGE, escaped(self.status.message()));
    }

    /// The gRPC status.
    #[cfg(test)]
    pub(super) fn code(&self) -> Code {
        self.status.code()
    }

    /// The gRPC message.
    #[cfg(test)]
    pub(super) fn message(&self) -> &str {
        self.status.message()
    }
}

/// Bytes outside of printable ASCII, and the percent sign, as `%XX` (gRPC over HTTP/2,
/// "Status-Message").
fn escaped(text: &str) -> HeaderValue {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            byte => {
                // Writing to a string cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    HeaderValue::try_from(out).expect("printable ASCII is a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_go_micro_client_finds_its_error_in_the_message_and_in_the_details() {
        let failure = Failure::new("go.micro.registry", Kind::NotFound, "no \"x\"\nhere");
        let json: serde_json::Value = serde_json::from_str(failure.message()).unwrap();
        assert_eq!(json["id"], "go.micro.registry");
        assert_eq!(json["code"], 404);
        assert_eq!(json["detail"], "no \"x\"\nhere");
        assert_eq!(json["status"], "Not Found");
        assert_eq!(failure.code(), Code::NotFound);

        let details = RpcStatus::decode(failure.status.details()).unwrap();
        assert_eq!((details.code, details.details.len()), (5, 1));
        assert_eq!(details.details[0].type_url, "type.googleapis.com/errors.Error");
        let error = errors::Error::decode(&details.details[0].value[..]).unwrap();
        assert_eq!((error.code, error.detail.as_str()), (404, "no \"x\"\nhere"));
    }

    #[test]
    fn a_message_is_header_text_whatever_is_in_it() {
        let mut headers = HeaderMap::new();
        Failure::new("x", Kind::BadRequest, "ü\r\n100 % \u{0}").put(&mut headers);
        assert_eq!(headers["grpc-status"], "3");
        let message = headers["grpc-message"].to_str().unwrap();
        assert!(message.contains("%C3%BC") && message.contains("100 %25"), "{message}");
    }
}
