//! An error, as each protocol says it. These heads are only ever made here, so a program can tell
//! what a node said from what its service said.

use std::fmt::Write as _;

use bytes::{BufMut, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

use crate::body::Body;
use crate::error::Error;
use crate::headers::{MICRO_ERROR, MICRO_NODE};

/// How the caller wants to be told.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    /// Trailers only, in the content type of the request.
    Grpc(HeaderValue),
    /// A problem document (RFC 9457).
    Problem,
    /// A line of text.
    Text,
}

impl Form {
    /// What the headers of a request ask for.
    pub(crate) fn of(headers: &HeaderMap, grpc: bool) -> Self {
        if grpc {
            let kind = headers.get(header::CONTENT_TYPE).cloned();
            return Self::Grpc(kind.unwrap_or(HeaderValue::from_static("application/grpc")));
        }
        let wants_json = headers.get_all(header::ACCEPT).iter().any(|accept| {
            accept.to_str().is_ok_and(|accept| accept.to_ascii_lowercase().contains("json"))
        });
        if wants_json { Self::Problem } else { Self::Text }
    }
}

/// The whole response that says `error`, which was first known at `node`.
pub(crate) fn response(error: &Error, node: &str, form: &Form) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    let body = match form {
        Form::Grpc(kind) => {
            *headers = trailers(error, node);
            headers.insert(header::CONTENT_TYPE, kind.clone());
            return response;
        }
        Form::Problem => {
            let kind = HeaderValue::from_static("application/problem+json");
            headers.insert(header::CONTENT_TYPE, kind);
            let status = error.http_status();
            let document = serde_json::json!({
                "type": format!("urn:micro:error:M{}", error.code()),
                "title": status.canonical_reason().unwrap_or_default(),
                "status": status.as_u16(),
                "detail": error.to_string(),
                "code": format!("M{}", error.code()),
                "node": node,
            });
            format!("{document}\n")
        }
        Form::Text => {
            let kind = HeaderValue::from_static("text/plain; charset=utf-8");
            headers.insert(header::CONTENT_TYPE, kind);
            let advice = error.advice().map(|advice| format!("{advice}\n"));
            format!("error[M{}]: {error}\n{}", error.code(), advice.unwrap_or_default())
        }
    };
    mark(headers, error, node);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    *response.status_mut() = error.http_status();
    *response.body_mut() = Body::full(body);
    response
}

/// Milliseconds after which a gRPC client may send the call again (gRFC A6, "Pushback").
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// The trailers that end a gRPC call with `error`.
pub(crate) fn trailers(error: &Error, node: &str) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    let status = error.grpc_status();
    let code = micro_code(error);
    let reason = StatusCode::from_u16(code).ok().and_then(|code| code.canonical_reason());
    let reason = reason.unwrap_or_default();
    let (id, detail) = (format!("micro.{node}"), error.to_string());
    let json = serde_json::json!({ "id": id, "code": code, "detail": detail, "status": reason });
    let json = json.to_string();
    headers.insert("grpc-status", HeaderValue::from(u16::from(status)));
    if let Ok(message) = HeaderValue::try_from(percent(&json)) {
        headers.insert("grpc-message", message);
    }
    let details = details(status, &json, &id, code, &detail, reason);
    let details = data_encoding::BASE64_NOPAD.encode(&details);
    if let Ok(details) = HeaderValue::try_from(details) {
        headers.insert("grpc-status-details-bin", details);
    }
    if let Some(wait) = error.retry_after() {
        let millis = u64::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
        headers.insert(PUSHBACK, HeaderValue::from(millis));
    }
    mark(&mut headers, error, node);
    headers
}

fn mark(headers: &mut HeaderMap, error: &Error, node: &str) {
    let code = HeaderValue::try_from(format!("M{}", error.code()));
    headers.insert(MICRO_ERROR, code.expect("a letter and digits are a header value"));
    if let Ok(node) = HeaderValue::try_from(node) {
        headers.insert(MICRO_NODE, node);
    }
    if let Some(wait) = error.retry_after() {
        // Whole seconds, never zero (RFC 9110 §10.2.3).
        let seconds = wait.as_millis().div_ceil(1000).max(1);
        let seconds = HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX));
        headers.insert(header::RETRY_AFTER, seconds);
    }
}

/// The code of a go-micro error. Never 500, which its clients retry whatever the call did; 408 is
/// its own word for a deadline.
fn micro_code(error: &Error) -> u16 {
    match error.http_status() {
        StatusCode::GATEWAY_TIMEOUT => 408,
        status => status.as_u16(),
    }
}

/// `google.rpc.Status` with one detail, an `errors.Error` of go-micro (contract, errors).
pub(crate) fn details(
    status: u8,
    message: &str,
    id: &str,
    code: u16,
    detail: &str,
    reason: &str,
) -> Vec<u8> {
    let mut error = BytesMut::new();
    put_text(&mut error, 1, id.as_bytes());
    put_int(&mut error, 2, u64::from(code));
    put_text(&mut error, 3, detail.as_bytes());
    put_text(&mut error, 4, reason.as_bytes());
    let mut any = BytesMut::new();
    put_text(&mut any, 1, b"type.googleapis.com/errors.Error");
    put_text(&mut any, 2, &error);
    let mut out = BytesMut::new();
    put_int(&mut out, 1, u64::from(status));
    put_text(&mut out, 2, message.as_bytes());
    put_text(&mut out, 3, &any);
    out.to_vec()
}

/// A varint field of protobuf.
fn put_int(out: &mut BytesMut, field: u8, value: u64) {
    out.put_u8(field << 3);
    put_varint(out, value);
}

/// A length-delimited field of protobuf.
fn put_text(out: &mut BytesMut, field: u8, text: &[u8]) {
    out.put_u8(field << 3 | 2);
    put_varint(out, text.len() as u64);
    out.put_slice(text);
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8((value & 0x7f) as u8);
}

/// Percent-encodes what `grpc-message` cannot hold (gRPC over HTTP/2, "Percent-Byte-Unencoded").
pub(crate) fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        match byte {
            b'%' => out.push_str("%25"),
            0x20..=0x7e => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_go_micro_client_reads_an_error_that_it_does_not_retry() {
        let error = Error::NoService("greter".to_owned());
        let kind = HeaderValue::from_static("application/grpc+json");
        let answer = response(&error, "fra-1", &Form::Grpc(kind.clone()));
        assert_eq!(answer.status(), StatusCode::OK);
        let headers = answer.headers();
        assert_eq!(headers[header::CONTENT_TYPE], kind);
        assert_eq!(headers["grpc-status"], "5");
        assert_eq!(headers["micro-error"], "M1203");
        assert_eq!(headers["micro-node"], "fra-1");
        let json: serde_json::Value =
            serde_json::from_str(headers["grpc-message"].to_str().unwrap()).unwrap();
        assert_eq!(json["id"], "micro.fra-1");
        assert_eq!(json["code"], 404);
        assert_eq!(json["status"], "Not Found");
        let details = headers["grpc-status-details-bin"].as_bytes();
        let details = data_encoding::BASE64_NOPAD.decode(details).unwrap();
        let text = String::from_utf8_lossy(&details);
        assert!(text.contains("type.googleapis.com/errors.Error"));
    }

    #[test]
    fn an_http_client_reads_a_problem_when_it_reads_json() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/html, application/json"));
        let error = Error::Overloaded { what: "shop is", limit: 7 };
        let answer = response(&error, "fra-1", &Form::of(&headers, false));
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(answer.headers()[header::RETRY_AFTER], "1");
        assert_eq!(answer.headers()["micro-error"], "M1305");
    }

    #[test]
    fn a_call_above_its_rate_is_told_when_to_come_back() {
        let wait = std::time::Duration::from_millis(1_500);
        let error = Error::RateLimited { what: "web to shop".to_owned(), retry_after: wait };
        let answer = response(&error, "fra-1", &Form::Text);
        assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.headers()[header::RETRY_AFTER], "2");
        assert_eq!(answer.headers()["micro-error"], "M1306");
        let trailers = trailers(&error, "fra-1");
        assert_eq!(trailers["grpc-status"], "8");
        assert_eq!(trailers["grpc-retry-pushback-ms"], "1500");
    }

    #[test]
    fn messages_hold_only_what_a_header_may() {
        assert_eq!(percent("50% of\nÄ"), "50%25 of%0A%C3%84");
    }
}
