//! What the end of an attempt says about the instance that was asked.

use http::{HeaderMap, StatusCode};

use crate::balance::Outcome;
use crate::error::Error;

/// gRPC: INTERNAL, UNAVAILABLE, DATA_LOSS. Not UNKNOWN, which is how many servers say what is wrong
/// with the request, nor RESOURCE_EXHAUSTED, which is how they limit one caller.
const GRPC_FAILURES: [&str; 3] = ["13", "14", "15"];

/// Of a response that has begun. What a service says about the request is no failure of the
/// instance, only that it cannot do its work.
pub(crate) fn of_reply(status: StatusCode, headers: &HeaderMap) -> Outcome {
    let grpc = headers.get("grpc-status").is_some_and(|status| {
        GRPC_FAILURES.iter().any(|failure| status.as_bytes() == failure.as_bytes())
    });
    match status {
        StatusCode::INTERNAL_SERVER_ERROR
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Outcome::Failed,
        _ if grpc => Outcome::Failed,
        _ => Outcome::Answered,
    }
}

/// Of an attempt without a response; `None` when it says nothing about the instance.
pub(crate) fn of_error(error: &Error) -> Option<Outcome> {
    match error.code() {
        1305 => Some(Outcome::Busy),
        1003 | 1004 | 1013 if error.is_unseen() => Some(Outcome::Refused),
        1003 | 1004 | 1007 | 1012 | 1013 => Some(Outcome::Failed),
        1005 => Some(Outcome::TimedOut),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_what_the_instance_is_to_blame_for_counts_against_it() {
        let grpc = |code: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", http::HeaderValue::from_static(code));
            of_reply(StatusCode::OK, &headers)
        };
        for (code, expected) in [
            ("0", Outcome::Answered),
            ("2", Outcome::Answered),
            ("5", Outcome::Answered),
            ("8", Outcome::Answered),
            ("13", Outcome::Failed),
            ("14", Outcome::Failed),
        ] {
            assert_eq!(grpc(code), expected, "{code}");
        }
        assert_eq!(of_reply(StatusCode::NOT_FOUND, &HeaderMap::new()), Outcome::Answered);
        assert_eq!(of_reply(StatusCode::BAD_GATEWAY, &HeaderMap::new()), Outcome::Failed);
        assert_eq!(of_error(&Error::TurnedAway(String::new())), Some(Outcome::Refused));
        assert_eq!(of_error(&Error::Deadline), Some(Outcome::TimedOut));
        assert_eq!(of_error(&Error::Cancelled), None);
        assert_eq!(of_error(&Error::Malformed("")), None);
        let saturated = Error::Saturated { wait: Duration::from_secs(1) };
        assert_eq!(of_error(&saturated), Some(Outcome::Busy));
    }
}
