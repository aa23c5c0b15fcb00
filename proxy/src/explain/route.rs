//! The way that one call took, for a caller who asks for it with `Micro-Trace: route`: the header
//! `Micro-Route` of the answer, as JSON.

use std::time::{Duration, Instant};

use http::HeaderValue;
use router::Routes;
use serde::{Deserialize, Serialize};

use super::{Explanation, Ignored, Spoken};
use crate::carry::{Call, Chosen, Form, Reply};
use crate::error::Error;
use crate::headers::MICRO_ROUTE;
use crate::proxy::Shared;
use crate::ruled::{Fields, Ruled};

/// Bytes of the header at most. What does not fit is left out, farthest candidates first: many
/// clients take no more than 8 KiB of headers in all.
pub const MAX_ROUTE: usize = 4096;
/// Bytes of the part that the node of the service adds.
const MAX_PART: usize = 256;
/// What a caller says who wants to know.
const ASKED: &str = "route";

/// The way that one call took. Times are microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Route {
    /// The name of the node that took the call from its caller.
    pub node: String,
    /// Where that is.
    pub region: String,
    /// Until the first instance was chosen.
    pub chosen_us: u64,
    /// Until the response began, or the call failed.
    pub took_us: u64,
    /// Instances that were asked, in turn; the last one answered, if one did.
    pub attempts: Vec<Attempt>,
    /// Why the call went there, after it was over.
    pub why: Explanation,
    /// Whether parts of `why` were left out for their size.
    pub cut: bool,
}

/// One instance that was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attempt {
    /// The id of the instance.
    pub instance: String,
    /// Where it listens.
    pub address: String,
    /// The name of its node.
    pub node: String,
    /// Where that is.
    pub region: String,
    /// Whether that is the caller's node too.
    pub here: bool,
    /// When it was asked, from the beginning of the call.
    pub began_us: u64,
    /// Until the response began or it failed, from then.
    pub took_us: u64,
    /// What its node did meanwhile; absent where it did not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_node: Option<AtNode>,
    /// The HTTP status it answered with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The code of what went wrong, as `M1003`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub code: String,
    /// What went wrong.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// What the node of a service says of its part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AtNode {
    /// From the arrival of the call until it was given to the instance.
    pub before_us: u64,
    /// Until the instance began to answer, from then.
    pub instance_us: u64,
}

impl AtNode {
    /// As the header that travels back to the caller's node.
    pub(crate) fn to_header(self) -> Option<HeaderValue> {
        HeaderValue::try_from(serde_json::to_string(&self).ok()?).ok()
    }

    /// What another node said; nothing, if that is not what it is.
    fn read(header: &HeaderValue) -> Option<Self> {
        let bytes = header.as_bytes();
        (bytes.len() <= MAX_PART).then(|| serde_json::from_slice(bytes).ok()).flatten()
    }
}

impl Route {
    /// Reads the header of an answer; `None` for what is none.
    #[must_use]
    pub fn read(header: &HeaderValue) -> Option<Self> {
        let bytes = header.as_bytes();
        (bytes.len() <= MAX_ROUTE).then(|| serde_json::from_slice(bytes).ok()).flatten()
    }

    /// As a header of at most [`MAX_ROUTE`] bytes.
    fn into_header(mut self) -> Option<HeaderValue> {
        loop {
            let text = ascii(&serde_json::to_string(&self).ok()?);
            if text.len() <= MAX_ROUTE {
                return HeaderValue::try_from(text).ok();
            }
            self.cut = true;
            let why = &mut self.why;
            match why.candidates.len() {
                // The one that was chosen is told as the last attempt, too.
                0 if *why == Explanation::default() => return self.shortest(),
                0 => *why = Explanation::default(),
                len => why.candidates.truncate(len / 2),
            }
        }
    }

    /// With nothing that others gave a name to.
    fn shortest(&self) -> Option<HeaderValue> {
        let (chosen_us, took_us) = (self.chosen_us, self.took_us);
        let short = Self { chosen_us, took_us, cut: true, ..Self::default() };
        HeaderValue::try_from(serde_json::to_string(&short).ok()?).ok()
    }
}

/// JSON without what a header may not hold (RFC 9110 §5.5): outside of strings all of it is ASCII.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut units = [0; 2];
    for c in json.chars() {
        if c.is_ascii() && c != '\u{7f}' {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

/// Takes note of a call on its way.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    began: Instant,
    chosen: Option<Duration>,
    attempts: Vec<Attempt>,
    /// The key of the instance asked last.
    last: Option<u64>,
    pub(crate) ignored: Vec<Ignored>,
}

impl Trace {
    /// For a call whose headers ask for it, before any of them is taken away.
    pub(crate) fn wanted(headers: &http::HeaderMap) -> Option<Box<Self>> {
        let asked = headers.get(crate::headers::MICRO_TRACE)?;
        if !crate::headers::has_token(asked, ASKED) {
            return None;
        }
        let ignored = crate::headers::unheard(headers);
        let (chosen, last, attempts) = (None, None, Vec::new());
        Some(Box::new(Self { began: Instant::now(), chosen, attempts, last, ignored }))
    }

    fn now(&self) -> u64 {
        micros(self.began.elapsed())
    }

    /// An instance is asked.
    pub(crate) fn asks(&mut self, chosen: &Chosen, routes: &Routes) {
        self.chosen.get_or_insert(self.began.elapsed());
        self.last = Some(chosen.key);
        let node = routes.node(&chosen.node);
        self.attempts.push(Attempt {
            instance: chosen.id.to_string(),
            address: chosen.address.to_string(),
            node: node.map_or_else(|| chosen.node.short(), |node| node.name.clone()),
            region: node.map(|node| node.region.clone()).unwrap_or_default(),
            here: chosen.here,
            began_us: self.now(),
            ..Attempt::default()
        });
    }

    /// It answered.
    pub(crate) fn answered(&mut self, reply: &Reply) {
        let now = self.now();
        let Some(attempt) = self.attempts.last_mut() else { return };
        attempt.took_us = now.saturating_sub(attempt.began_us);
        attempt.status = Some(reply.status.as_u16());
        if !attempt.here {
            attempt.at_node = reply.headers.get(MICRO_ROUTE).and_then(AtNode::read);
        }
    }

    /// It failed.
    pub(crate) fn failed(&mut self, error: &Error) {
        let now = self.now();
        let Some(attempt) = self.attempts.last_mut() else { return };
        attempt.took_us = now.saturating_sub(attempt.began_us);
        attempt.code = format!("M{}", error.code());
        attempt.error = error.to_string();
    }
}

impl Shared {
    /// What is told of a call that is over.
    pub(crate) fn route(&self, call: &Call, trace: Trace) -> Option<HeaderValue> {
        let routes = self.routes.load();
        let (fields, plain) = (Fields(&call.head.headers), Ruled::of(call, 0));
        let ruled = call.ruled.as_deref().unwrap_or(&plain);
        let view = self.view(call, ruled, &fields, &routes);
        let spoken = if call.form == Form::Grpc { Spoken::Grpc } else { Spoken::Http };
        let mut why =
            self.explain(&routes, &call.service, &view, spoken, call.via.as_deref(), trace.last);
        why.ignored = trace.ignored.clone();
        let region = routes.node(&self.me).map(|me| me.region.clone()).unwrap_or_default();
        let route = Route {
            node: self.node_name.clone(),
            region,
            chosen_us: trace.chosen.map_or_else(|| trace.now(), micros),
            took_us: trace.now(),
            attempts: trace.attempts,
            why,
            cut: false,
        };
        route.into_header()
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::Candidate;
    use super::*;

    #[test]
    fn a_route_fits_its_bound_and_loses_the_farthest_candidates_first() {
        let one = |n: usize| Candidate { instance: format!("é-{n}"), ..Candidate::default() };
        let candidates = (0..1_000).map(one).collect();
        let why = Explanation { service: "shop".into(), candidates, ..Explanation::default() };
        let route = Route { node: "ada".into(), why, ..Route::default() };
        let header = route.clone().into_header().unwrap();
        assert!(header.len() <= MAX_ROUTE && header.to_str().is_ok());
        let back = Route::read(&header).unwrap();
        assert!(back.cut && back.node == "ada" && back.why.service == "shop");
        let kept = back.why.candidates.len();
        assert!(kept > 4, "{kept}");
        assert_eq!(back.why.candidates[..], route.why.candidates[..kept]);
    }

    #[test]
    fn what_others_name_cannot_make_a_route_too_long() {
        let attempt = Attempt { error: "x".repeat(MAX_ROUTE), ..Attempt::default() };
        let route = Route { took_us: 7, attempts: vec![attempt], ..Route::default() };
        let header = route.into_header().unwrap();
        let back = Route::read(&header).unwrap();
        assert_eq!((back.took_us, back.cut, back.attempts.len()), (7, true, 0));
    }

    #[test]
    fn what_no_node_says_is_not_read() {
        for bad in ["", "x", "{\"before_us\":-1}"] {
            assert_eq!(AtNode::read(&HeaderValue::from_static(bad)), None, "{bad}");
        }
        let part = AtNode { before_us: 3, instance_us: 40 };
        assert_eq!(AtNode::read(&part.to_header().unwrap()), Some(part));
    }
}
