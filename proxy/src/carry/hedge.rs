//! A second instance asked as well, when the first takes longer than nineteen of twenty calls do.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::OnceLock;
use std::task::Poll;
use std::time::Duration;

use super::choose::Chosen;
use super::{Call, Fell, Reply, Tried};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::proxy::Shared;

/// The least wait before a second instance is asked: below it the timer costs more than it gains.
const LEAST: Duration = Duration::from_millis(1);

impl Shared {
    /// A copy of the call for a second instance, if it may be asked: the caller said that doing it
    /// twice does no harm, and the whole request is here. A request still being sent is not waited
    /// for, nor is one above [`crate::Limits::replay`].
    pub(crate) async fn twin(&self, call: &mut Call) -> Result<Option<Call>, Error> {
        let gathered = poll_fn(|cx| Poll::Ready(call.source.gather(cx))).await;
        gathered.map_err(|ended| super::leg::ended_early(ended).0)?;
        let Some(source) = call.source.copy() else { return Ok(None) };
        Ok(Some(Call {
            head: call.head.clone(),
            source,
            service: call.service.clone(),
            selector: call.selector.clone(),
            form: call.form,
            idempotent: call.idempotent,
            messages: call.messages,
            ruled: call.ruled.clone(),
            via: call.via.clone(),
            named: call.named.clone(),
            trace: None,
        }))
    }

    /// Asks the chosen instance, and `after` some time without an answer another one as well, within
    /// the retry budget. The first response counts; dropping the other attempt cancels it.
    pub(super) async fn hedged(
        &self,
        call: &mut Call,
        mut twin: Call,
        chosen: Chosen,
        after: Duration,
        deadline: &mut Deadline,
        tried: &mut Tried,
    ) -> Result<Reply, Fell> {
        let (known, mut also) = (tried.clone(), deadline.again());
        // The key of the second, once it is asked.
        let asked = OnceLock::new();
        let mut first = pin!(self.attempt(call, chosen, true, deadline));
        let mut second = pin!(async {
            tokio::time::sleep(after.max(LEAST)).await;
            let other = self.choose_second(&twin, &known)?;
            if !other.at.may_try_again() {
                self.metrics.denied();
                return None;
            }
            asked.get_or_init(|| other.key);
            self.metrics.hedge();
            Some(self.attempt(&mut twin, other, false, &mut also).await)
        });
        let mut fell = None;
        let mut over = false;
        let answered = poll_fn(|cx| {
            if fell.is_none()
                && let Poll::Ready(ended) = first.as_mut().poll(cx)
            {
                match ended {
                    Ok(reply) => return Poll::Ready(Some(reply)),
                    Err(error) => fell = Some(error),
                }
            }
            if !over && let Poll::Ready(ended) = second.as_mut().poll(cx) {
                over = true;
                if let Some(Ok(reply)) = ended {
                    return Poll::Ready(Some(reply));
                }
            }
            // With the first failed, a second that is not asked yet is an ordinary retry.
            let alone = over || asked.get().is_none();
            if fell.is_some() && alone { Poll::Ready(None) } else { Poll::Pending }
        })
        .await;
        tried.extend(asked.get().copied());
        match (answered, fell) {
            (Some(reply), _) => Ok(reply),
            (None, Some(fell)) => Err(fell),
            (None, None) => unreachable!("without an answer the first attempt has failed"),
        }
    }
}
