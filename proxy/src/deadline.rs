//! How long the caller still waits.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::{Instant, Sleep};

use crate::error::Error;

/// The header of gRPC: at most eight digits and a unit (gRPC over HTTP/2, "Timeout").
pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// The header of go-micro: decimal nanoseconds.
pub(crate) const TIMEOUT: HeaderName = HeaderName::from_static("timeout");

/// The moment after which nobody waits for the call any more.
#[derive(Default)]
pub(crate) struct Deadline {
    at: Option<Instant>,
    /// Made when it is first waited for: most calls end before.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    pub(crate) fn after(budget: Option<Duration>) -> Self {
        let at = budget.and_then(|budget| Instant::now().checked_add(budget));
        Self { at, sleep: None }
    }

    /// Makes it at most this long from now.
    pub(crate) fn shorten(&mut self, most: Duration) {
        let at = Instant::now().checked_add(most);
        if let Some(at) = at.filter(|at| self.at.is_none_or(|before| *at < before)) {
            *self = Self { at: Some(at), sleep: None };
        }
    }

    /// The same moment, to be waited for beside this one.
    pub(crate) fn again(&self) -> Self {
        Self { at: self.at, sleep: None }
    }

    /// Whether there is one.
    pub(crate) fn is_set(&self) -> bool {
        self.at.is_some()
    }

    /// What is left; `None`: there is no deadline.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.at.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Ready when it has passed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        sleep.as_mut().poll(cx)
    }

    /// What `future` gives, unless the deadline passes first.
    pub(crate) async fn race<T>(
        &mut self,
        // Pinned where it is made: taken by value it would be there twice.
        mut future: Pin<&mut impl Future<Output = Result<T, Error>>>,
    ) -> Result<T, Error> {
        std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = future.as_mut().poll(cx) {
                return Poll::Ready(done);
            }
            self.poll(cx).map(|()| Err(Error::Deadline))
        })
        .await
    }
}

/// What is left, as a gRPC caller said it; the shorter of the two headers. `None`: no deadline.
///
/// # Errors
/// When `grpc-timeout` is there and is not a timeout. go-micro's own header is ignored when it is
/// not a number, for other programs use that name too.
pub(crate) fn budget(headers: &HeaderMap) -> Result<Option<Duration>, Malformed> {
    let grpc = match headers.get(GRPC_TIMEOUT) {
        Some(value) => Some(parse_grpc(value.as_bytes()).ok_or(Malformed)?),
        None => None,
    };
    let micro = headers.get(TIMEOUT).and_then(|value| {
        let nanos = value.to_str().ok()?.parse::<u64>().ok()?;
        (nanos > 0).then(|| Duration::from_nanos(nanos))
    });
    Ok(match (grpc, micro) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    })
}

/// `grpc-timeout` is not a timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

fn parse_grpc(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Puts what is left in place of what the caller wrote, in the headers it wrote.
pub(crate) fn rewrite(headers: &mut HeaderMap, left: Duration) {
    if let Some(value) = headers.get_mut(GRPC_TIMEOUT) {
        *value = grpc_value(left);
    }
    if let Some(value) = headers.get_mut(TIMEOUT) {
        *value = HeaderValue::from(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX));
    }
}

pub(crate) fn grpc_value(left: Duration) -> HeaderValue {
    let (number, unit) = match left.as_micros() {
        micros @ 0..100_000_000 => (micros, 'u'),
        micros if micros / 1_000 < 100_000_000 => (micros / 1_000, 'm'),
        micros => ((micros / 1_000_000).min(99_999_999), 'S'),
    };
    let text = format!("{number}{unit}");
    HeaderValue::try_from(text).expect("digits and a letter are a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_of_both_headers_counts() {
        let mut headers = HeaderMap::new();
        assert_eq!(budget(&headers), Ok(None));
        headers.insert(GRPC_TIMEOUT, HeaderValue::from_static("4998687u"));
        headers.insert(TIMEOUT, HeaderValue::from_static("5000000000"));
        assert_eq!(budget(&headers), Ok(Some(Duration::from_micros(4_998_687))));
    }

    #[test]
    fn what_is_left_is_written_where_the_caller_wrote_it_and_nowhere_else() {
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_TIMEOUT, HeaderValue::from_static("5S"));
        rewrite(&mut headers, Duration::from_micros(1_234));
        assert_eq!(headers[GRPC_TIMEOUT], "1234u");
        assert!(!headers.contains_key(TIMEOUT));
        rewrite(&mut headers, Duration::from_secs(200 * 86_400));
        assert_eq!(headers[GRPC_TIMEOUT], "17280000S");
    }

    #[test]
    fn a_timeout_that_is_none_is_refused() {
        for text in ["", "5", "S", "123456789S", "-1S", "1.5S", "5s"] {
            let mut headers = HeaderMap::new();
            headers.insert(GRPC_TIMEOUT, HeaderValue::from_static(text));
            assert_eq!(budget(&headers), Err(Malformed), "{text:?}");
        }
    }
}
