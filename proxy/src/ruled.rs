//! What rules decide about one call: once, for all its attempts.
//!
//! ```text
//! begin ─▶ rule ─▶ rate limit, abort, delay, timeout, a copy elsewhere ─▶ carry
//!                                              each attempt: Routes::decide ─▶ candidates
//! ```
//!
//! What is left to chance hangs on one number of the call, so every attempt is decided alike.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderValue};
use proto::rule::Mirror;
use router::{Decision, Headers, RequestView, Routes};

use crate::balance::Rate;
use crate::balance::shell::Balance;
use crate::carry::{Call, Form};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::headers::{MICRO_FROM_SERVICE, MICRO_MIRROR};
use crate::proxy::Shared;
use crate::source::Source;

/// A call that a rule is for.
#[derive(Clone, Debug)]
pub(crate) struct Ruled {
    /// What chance decides by.
    chance: u64,
    endpoint: String,
    caller: String,
    /// Instances that may be asked, the first included.
    pub(crate) attempts: Option<u32>,
    /// Calls of the same number go to the same instance.
    pub(crate) affinity: Option<u64>,
    /// Loads, in percent, from which on and below which calls spill over.
    pub(crate) spill: Option<(u8, u8)>,
}

impl Ruled {
    /// Of a call about which nothing is decided yet.
    pub(crate) fn of(call: &Call, chance: u64) -> Self {
        let caller = call.head.headers.get(MICRO_FROM_SERVICE);
        let caller = caller.and_then(|caller| caller.to_str().ok()).unwrap_or_default().to_owned();
        let (attempts, affinity, spill) = (None, None, None);
        Self { chance, endpoint: endpoint(call), caller, attempts, affinity, spill }
    }
}

/// What is to be done with a call before it is carried.
struct First {
    rule: String,
    rate: Option<(Rate, u64)>,
    abort: Option<u16>,
    delay: Option<Duration>,
    timeout: Option<Duration>,
    mirror: Option<Mirror>,
}

impl Shared {
    /// Does what rules want done before the call is carried, and notes the rest in it.
    ///
    /// # Errors
    /// [`Error::RateLimited`] or [`Error::Aborted`] by a rule; [`Error::Deadline`] when that passes
    /// while the call is held up.
    pub(crate) async fn rule(
        self: &Arc<Self>,
        call: &mut Call,
        deadline: &mut Deadline,
    ) -> Result<(), Error> {
        let Some((ruled, first)) = self.decided(call) else { return Ok(()) };
        call.ruled = Some(Box::new(ruled));
        // Boxed, for most calls have no rule.
        Box::pin(self.first(call, first, deadline)).await
    }

    fn decided(&self, call: &Call) -> Option<(Ruled, First)> {
        let routes = self.routes.load();
        // Looked at before anything is made for it: most services have no rules.
        routes.service(&call.service)?.rules()?;
        let ruled = Ruled::of(call, self.balance.chance());
        let fields = Fields(&call.head.headers);
        let decision = self.decide(call, &ruled, &fields, &routes);
        let (rule, _) = decision.rule?;
        let rate = decision.rate.map(|(rate, key)| {
            let pace = Rate::new(rate.per_second, Duration::from_secs(1), rate.burst);
            (pace, key ^ proto::rule::stable_hash(&call.service, ""))
        });
        let millis = |millis: u32| Duration::from_millis(u64::from(millis));
        let first = First {
            // Only what refuses says its name.
            rule: match (&rate, decision.abort) {
                (None, None) => String::new(),
                (_, _) => rule.name.clone(),
            },
            rate,
            abort: decision.abort.map(|abort| abort.status),
            delay: decision.delay.map(|delay| millis(delay.millis)),
            timeout: decision.timeout().map(millis),
            mirror: decision.mirror.cloned(),
        };
        let attempts = decision.retries().map(|retries| u32::from(retries) + 1);
        let affinity = decision.affinity;
        let spill = decision.spill().map(|spill| (spill.above, spill.below));
        Some((Ruled { attempts, affinity, spill, ..ruled }, first))
    }

    /// What becomes of an attempt of a call that rules are for.
    pub(crate) fn decide<'a>(
        &'a self,
        call: &'a Call,
        ruled: &'a Ruled,
        fields: &'a Fields<'a>,
        routes: &'a Routes,
    ) -> Decision<'a> {
        let view = self.view(call, ruled, fields, routes);
        routes.decide(&call.service, &view, tunnel::config::wall())
    }

    /// A call as rules see it.
    pub(crate) fn view<'a>(
        &'a self,
        call: &'a Call,
        ruled: &'a Ruled,
        fields: &'a Fields<'a>,
        routes: &'a Routes,
    ) -> RequestView<'a> {
        RequestView {
            endpoint: &ruled.endpoint,
            headers: fields,
            caller: &ruled.caller,
            node_name: &self.node_name,
            node_id: &self.me_text,
            node_labels: routes.node(&self.me).map_or(&self.no_labels, |node| &node.labels),
            selector: &call.selector,
            chance: ruled.chance,
        }
    }

    async fn first(
        self: &Arc<Self>,
        call: &mut Call,
        first: First,
        deadline: &mut Deadline,
    ) -> Result<(), Error> {
        if let Some((rate, key)) = first.rate
            && let Err(retry_after) = self.balance.pace(key, rate)
        {
            let what = format!("{} (rule {})", call.service, first.rule);
            return Err(Error::RateLimited { what, retry_after });
        }
        if let Some(timeout) = first.timeout {
            deadline.shorten(timeout);
        }
        if let Some(delay) = first.delay {
            let held_up = async {
                tokio::time::sleep(delay).await;
                Ok(())
            };
            deadline.race(pin!(held_up)).await?;
        }
        if let Some(status) = first.abort {
            return Err(Error::Aborted { rule: first.rule, status });
        }
        // Bytes are for one who answers: there is nothing to copy before they come.
        let copied = !matches!(call.form, Form::Bytes | Form::Tls | Form::Packets | Form::Upgrade);
        if let Some(mirror) = first.mirror.filter(|_| copied) {
            self.mirror(call, mirror, deadline).await?;
        }
        Ok(())
    }

    /// Sends a copy of the call elsewhere, if all of it is here. Nobody waits for it, and no rule is
    /// asked about it: a copy is not copied.
    async fn mirror(
        self: &Arc<Self>,
        call: &mut Call,
        mirror: Mirror,
        deadline: &Deadline,
    ) -> Result<(), Error> {
        let Some(mut copy) = self.twin(call).await? else {
            self.metrics.mirror_missed();
            return Ok(());
        };
        copy.service = mirror.target.service.as_str().to_owned();
        copy.selector = mirror.target.selector;
        (copy.ruled, copy.via, copy.named) = (None, None, None);
        copy.head.headers.insert(MICRO_MIRROR, HeaderValue::from_static("1"));
        self.metrics.mirrored();
        let (shared, mut deadline) = (Arc::clone(self), deadline.again());
        let patience = deadline.left().unwrap_or(MIRROR_WAIT).min(MIRROR_WAIT);
        tokio::spawn(async move {
            let answered = async {
                let Ok(reply) = shared.carry(&mut copy, &mut deadline).await else { return };
                // Read to its end, for a service that is cut off in the middle would notice.
                let uncounted = prometheus_client::metrics::counter::Counter::default();
                let mut body = Source::new(reply.body, None, &uncounted);
                while let Some(Ok(_)) = std::future::poll_fn(|cx| body.poll_part(cx)).await {}
            };
            // Over or not, what comes back is thrown away.
            let _ = tokio::time::timeout(patience, answered).await;
        });
        Ok(())
    }
}

/// How long the answer to a copy is read.
const MIRROR_WAIT: Duration = Duration::from_secs(30);

/// `Struct.Method` of a gRPC path, the path itself otherwise.
fn endpoint(call: &Call) -> String {
    let path = call.head.path.path();
    if call.form != Form::Grpc {
        return path.to_owned();
    }
    let mut parts = path.strip_prefix('/').unwrap_or(path).splitn(2, '/');
    let (service, method) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let kind = service.rsplit_once('.').map_or(service, |(_, kind)| kind);
    // For each call that rules may be for, and formatting costs more than all the rest here.
    let mut endpoint = String::with_capacity(kind.len() + 1 + method.len());
    endpoint.push_str(kind);
    endpoint.push('.');
    endpoint.push_str(method);
    endpoint
}

/// The headers of a request, as rules see them.
pub(crate) struct Fields<'a>(pub(crate) &'a HeaderMap);

impl Headers for Fields<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().ok()
    }
}

impl Balance {
    /// Counts a call against a rate limit.
    ///
    /// # Errors
    /// How long to wait.
    fn pace(&self, key: u64, rate: Rate) -> Result<(), Duration> {
        self.rates(|rates, now| rates.check(key, rate, now))
    }
}
