//! Whose fault is it? What micro could not deliver, and what the service itself answered, never
//! look the same: only micro's own errors carry `micro-error`.

use std::borrow::Cow;

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::place::Place;
use crate::error::{Exit, Problem, codes};
use crate::output::{self, Output, text};

/// The names of gRPC's statuses, by number.
const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The name of a status of gRPC.
#[must_use]
pub fn status_name(number: u32) -> &'static str {
    NAMES.get(number as usize).map_or("unknown status", |name| name)
}

/// A call that did not end well.
#[derive(Debug)]
pub enum Failed {
    /// Not delivered, or lost on its way.
    Micro(Box<Problem>),
    /// Delivered: the service says no.
    Service(ServiceError),
}

impl Failed {
    /// Prints the service's own error and gives the exit code; passes micro's on.
    ///
    /// # Errors
    /// What micro could not do.
    pub fn end(self, output: Output) -> Result<Exit, Problem> {
        match self {
            Self::Micro(problem) => Err(*problem),
            Self::Service(error) => {
                error.print(output)?;
                Ok(Exit::ServiceError)
            }
        }
    }
}

/// What a service answered instead of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceError {
    /// The service.
    pub service: String,
    /// Its status: that of gRPC, or of HTTP.
    pub number: u32,
    /// The name of the status.
    pub name: String,
    /// What it says about it, often the JSON of go-micro.
    pub message: String,
}

impl ServiceError {
    fn print(&self, output: Output) -> Result<(), Problem> {
        if output.is_json() {
            let error: Value =
                serde_json::from_str(&self.message).unwrap_or_else(|_| json!(self.message));
            output.document(
                "ServiceError",
                json!({
                    "service": self.service,
                    "status": self.name,
                    "status_number": self.number,
                    "message": error,
                }),
            )?;
        }
        let line = format!("{} answered with an error: {}", self.service, self.name);
        output::talk(&text::plain(&line));
        if !self.message.is_empty() {
            output::talk(&text::plain_lines(&format!("  {}", self.message)));
        }
        Ok(())
    }
}

/// How a gRPC call ended, by its status, head and last headers.
///
/// # Errors
/// Unless it ended well.
pub fn of_grpc(
    place: &Place,
    status: StatusCode,
    head: &HeaderMap,
    end: &HeaderMap,
) -> Result<(), Failed> {
    for headers in [end, head] {
        if let Some(problem) = of_micro(place, headers) {
            return Err(Failed::Micro(Box::new(problem)));
        }
    }
    let number = end
        .get("grpc-status")
        .or_else(|| head.get("grpc-status"))
        .and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    let service = place.service.to_string();
    match number {
        Some(0) => Ok(()),
        Some(number) => {
            let name = status_name(number);
            let message = message(end).or_else(|| message(head)).unwrap_or_default();
            Err(Failed::Service(ServiceError { service, number, name: name.to_owned(), message }))
        }
        None => Err(Failed::Service(ServiceError {
            service,
            number: status.as_u16().into(),
            name: format!("HTTP {status}"),
            message: "the answer is no gRPC: it may be an HTTP service".to_owned(),
        })),
    }
}

/// The problem that micro reports in `headers`, if it made them.
#[must_use]
pub fn of_micro(place: &Place, headers: &HeaderMap) -> Option<Problem> {
    let code = headers.get("micro-error")?.to_str().ok()?;
    let known = codes::explain(code);
    let node = headers.get("micro-node").and_then(|value| value.to_str().ok());
    let detail = message(headers).map(|message| match serde_json::from_str::<Value>(&message) {
        Ok(error) => error["detail"].as_str().map_or(message, str::to_owned),
        Err(_) => message,
    });
    let what = match (detail, known) {
        (Some(detail), _) if !detail.is_empty() => detail,
        (_, Some(known)) => format!("{place}: {}", known.title),
        (_, None) => format!("{place} could not be called"),
    };
    let service = &place.service;
    let problem = Problem {
        code: known.map_or(Cow::Owned(code.to_owned()), |known| Cow::Borrowed(known.code)),
        what,
        why: None,
        excerpt: None,
        tries: Vec::new(),
        exit: exit_of(code),
    };
    let cause = known.map(|known| known.cause);
    let why = match (node, cause) {
        (Some(node), Some(cause)) => Some(format!("node {node} says: {cause}")),
        (Some(node), None) => Some(format!("node {node} says so")),
        (None, cause) => cause.map(str::to_owned),
    };
    let problem = Problem { why, ..problem };
    Some(match code {
        "M1203" => problem.attempt("micro services", "lists the names that exist"),
        "M1005" => problem.attempt(format!("micro describe {service}"), "where it runs"),
        _ => problem.attempt(format!("micro network routes {service}"), "where it runs"),
    })
}

/// How a command ends with an error of micro's on the road of a call.
fn exit_of(code: &str) -> Exit {
    match code {
        "M1002" | "M1203" => Exit::NotFound,
        "M1003" | "M1004" | "M1005" | "M1007" | "M1013" => Exit::Unreachable,
        "M1011" => Exit::NotAllowed,
        _ => Exit::Failed,
    }
}

/// `grpc-message`, without its percent-encoding (PROTOCOL-HTTP2.md, Status-Message).
fn message(headers: &HeaderMap) -> Option<String> {
    let raw = headers.get("grpc-message")?.as_bytes();
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let [first, tail @ ..] = rest {
        let decoded = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high * 16 + low),
            _ => None,
        };
        // What is not well encoded is kept as it came.
        out.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() { &tail[2..] } else { tail };
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
            })
            .collect()
    }

    fn ended(pairs: &[(&'static str, &str)]) -> Result<(), Failed> {
        let place = "greeter".parse().unwrap();
        of_grpc(&place, StatusCode::OK, &HeaderMap::new(), &headers(pairs))
    }

    #[test]
    fn micros_errors_and_the_services_never_look_the_same() {
        assert!(ended(&[("grpc-status", "0")]).is_ok());
        let service = ended(&[("grpc-status", "5"), ("grpc-message", "no%20such%20user")]);
        let Err(Failed::Service(error)) = service else { panic!("{service:?}") };
        assert_eq!((error.name.as_str(), error.message.as_str()), ("NOT_FOUND", "no such user"));

        let micro = ended(&[
            ("grpc-status", "5"),
            ("grpc-message", "{\"id\":\"micro.fra-1\",\"code\":404,\"detail\":\"no service x\"}"),
            ("micro-error", "M1203"),
            ("micro-node", "fra-1"),
        ]);
        let Err(Failed::Micro(problem)) = micro else { panic!("{micro:?}") };
        assert_eq!((&*problem.code, problem.exit), ("M1203", Exit::NotFound));
        assert_eq!(problem.what, "no service x");
        assert!(problem.why.unwrap().starts_with("node fra-1 says"));
    }

    #[test]
    fn each_code_of_the_road_ends_with_its_exit() {
        for (code, exit) in [
            ("M1002", Exit::NotFound),
            ("M1003", Exit::Unreachable),
            ("M1005", Exit::Unreachable),
            ("M1011", Exit::NotAllowed),
            ("M1305", Exit::Failed),
            ("M1999", Exit::Failed),
        ] {
            let Err(Failed::Micro(problem)) = ended(&[("micro-error", code)]) else { panic!() };
            assert_eq!(problem.exit, exit, "{code}");
        }
    }

    #[test]
    fn a_message_that_is_badly_encoded_is_kept() {
        for (raw, text) in [("100%", "100%"), ("a%zzb", "a%zzb"), ("%C3%A4", "ä"), ("%4", "%4")] {
            assert_eq!(message(&headers(&[("grpc-message", raw)])).unwrap(), text);
        }
    }
}
