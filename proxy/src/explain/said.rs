//! The words of an explanation.

use std::time::Duration;

use proto::Time;
use proto::record::Protocol;
use router::rules::Verdict as Fit;

use super::{Considered, Spoken, State, Verdict, What};
use crate::balance::Why;

/// What is said of an instance: the word, and a line for people.
pub(super) fn verdict(
    fit: &Fit,
    verdict: Option<&Verdict>,
    seen: Option<&Considered>,
    now: Time,
) -> (State, String) {
    let known = verdict.filter(|_| matches!(fit, Fit::Nearest | Fit::Farther));
    let word = State::by_fit(fit);
    let Some(known) = known else { return (word, fit.to_string()) };
    let failures = seen.map_or(0, |seen| seen.failures);
    let text = match known {
        Verdict::Chosen | Verdict::Busier => return (word, fit.to_string()),
        Verdict::Out { until, why } => {
            let left = until.since(now);
            match why {
                Why::Refused => {
                    format!("out: it took no call; asked again in {}", seconds(left))
                }
                Why::Consecutive => format!(
                    "out: ejected after {failures} failures in a row; asked again in {}",
                    seconds(left)
                ),
                Why::SuccessRate => format!(
                    "out: ejected, more of its calls fail than of the others'; asked again in {}",
                    seconds(left)
                ),
            }
        }
        Verdict::HalfOpen { .. } => "out: one call is finding out whether it is back".to_owned(),
        Verdict::ProbeDue { .. } => "out: the next call finds out whether it is back".to_owned(),
        Verdict::LimitReached => {
            let calls = seen.map_or(0, |seen| seen.in_flight);
            let others = seen.map_or(0.0, |seen| seen.others).round();
            format!("out: at its limit, with {calls} calls from here and {others} of others")
        }
        Verdict::OtherLocality { spilled, .. } if *spilled > 0.0 => {
            format!("in: others are nearer; {:.0}% of the calls spill over", spilled * 100.0)
        }
        Verdict::OtherLocality { .. } => "in: others are nearer".to_owned(),
        Verdict::SlowStart { share } => {
            format!("in: it begins slowly, with {:.0}% of its share", share * 100.0)
        }
    };
    (State::from(known), text)
}

/// What is said of an instance that cannot be given a call of this kind.
pub(super) fn undelivered(protocol: Protocol, spoken: Spoken) -> String {
    let speaks = match protocol {
        Protocol::Http1 => "HTTP/1.1",
        Protocol::Http2 => "HTTP/2",
        Protocol::Grpc => "gRPC",
        Protocol::Mucp => "MUCP",
        Protocol::Tcp => "bytes over TCP",
        Protocol::Tls => "TLS",
        Protocol::Udp => "UDP",
        Protocol::Other(_) => "a protocol that is not delivered",
    };
    match spoken {
        Spoken::Grpc => format!("out: it speaks {speaks}, the call gRPC"),
        Spoken::Http => format!("out: it speaks {speaks}"),
    }
}

/// What happened to an instance.
pub(super) fn change(what: What) -> String {
    match what {
        What::Out { why: Why::Refused, .. } => "out: it took no call".to_owned(),
        What::Out { why: Why::Consecutive, failures } => format!("ejected: {failures} errors"),
        What::Out { why: Why::SuccessRate, .. } => {
            "ejected: more errors than the others".to_owned()
        }
        What::Back => "back, begins slowly".to_owned(),
        What::Came => "new".to_owned(),
        What::Went => "gone".to_owned(),
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1}s", time.as_secs_f32())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ejection_says_after_what_and_until_when() {
        let now = Time::from_micros(1_000_000);
        let out = Verdict::Out { until: now + Duration::from_millis(1_500), why: Why::Consecutive };
        let seen = Considered {
            key: 1,
            verdict: out,
            wait: 10.0,
            latency: 10.0,
            success: 0.5,
            failures: 5,
            limit: 10,
            in_flight: 0,
            others: 0.0,
        };
        let (word, text) = verdict(&Fit::Nearest, Some(&out), Some(&seen), now);
        assert_eq!(word, State::Ejected);
        assert_eq!(text, "out: ejected after 5 failures in a row; asked again in 1.5s");
        let lacks = Fit::Lacks("version=v2".into(), Some("v1".into()));
        let (word, text) = verdict(&lacks, Some(&out), Some(&seen), now);
        assert_eq!((word, &*text), (State::Lacks, "out: not version=v2, but v1"));
    }
}
