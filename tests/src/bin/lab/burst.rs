//! So many calls as fast as they are answered, and who answered how many.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::wire::{self, Messages, Outcome};

/// Every call's deadline, as a header and here.
const DEADLINE: Duration = Duration::from_secs(10);

/// Prints one JSON object: `answered`, a number for each instance, and `failed`, for each reason.
pub(crate) async fn run(proxy: &str, count: &str, at_once: &str) -> Outcome {
    let (count, at_once): (u64, usize) = (count.parse()?, at_once.parse()?);
    let next = Arc::new(AtomicU64::new(0));
    let client = wire::connect(proxy).await?;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..at_once {
        let (next, client, proxy) = (Arc::clone(&next), client.clone(), proxy.to_owned());
        callers.spawn(async move {
            let (mut answered, mut failed) =
                <(BTreeMap<String, u64>, BTreeMap<String, u64>)>::default();
            while next.fetch_add(1, Ordering::Relaxed) < count {
                let ended = tokio::time::timeout(DEADLINE, one(&client, &proxy)).await;
                match ended.unwrap_or_else(|_| Err("no answer".into())) {
                    Ok(instance) => *answered.entry(instance).or_default() += 1,
                    Err(why) => *failed.entry(why.to_string()).or_default() += 1,
                }
            }
            (answered, failed)
        });
    }
    let (mut answered, mut failed) = <(BTreeMap<String, u64>, BTreeMap<String, u64>)>::default();
    while let Some(done) = callers.join_next().await {
        let (of_one, lost) = done?;
        of_one.into_iter().for_each(|(name, n)| *answered.entry(name).or_default() += n);
        lost.into_iter().for_each(|(why, n)| *failed.entry(why).or_default() += n);
    }
    println!("{}", serde_json::json!({ "answered": answered, "failed": failed }));
    Ok(())
}

async fn one(client: &h2::client::SendRequest<bytes::Bytes>, proxy: &str) -> Outcome<String> {
    let headers = [("grpc-timeout", format!("{}m", DEADLINE.as_millis()))];
    let (answer, _body) = wire::call(client, proxy, "Unary", &headers, b"x").await?;
    let answer = answer.await?;
    let instance = answer.headers().get("instance").and_then(|name| name.to_str().ok());
    let instance = instance.unwrap_or("nobody").to_owned();
    let early = wire::status(answer.headers());
    let mut messages = Messages::new(answer.into_body());
    while messages.next().await?.is_some() {}
    match wire::status(&messages.trailers().await?).or(early) {
        Some((0, _)) => Ok(instance),
        Some((status, why)) => Err(format!("{status} {}", why.unwrap_or_default()).into()),
        None => Err("an answer without a status".into()),
    }
}
