//! The caller: a fixed rate of calls whatever becomes of them, and streams that should never end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use tests::events::{BROKEN, Event, HUNG, Kind, now_us};
use tokio::sync::Mutex;

use crate::wire::{self, Messages, Outcome};

/// Every call's deadline; one second more and it counts as hung.
const DEADLINE: Duration = Duration::from_secs(5);
const GRACE: Duration = Duration::from_secs(1);
/// A stream that was lost is opened again after this.
const AGAIN: Duration = Duration::from_millis(100);

struct Caller {
    proxy: String,
    /// The one connection to the proxy, opened again when it is gone.
    connection: Mutex<Option<SendRequest<Bytes>>>,
}

pub(crate) async fn run(proxy: &str, rate: &str, streams: &str) -> Outcome {
    let caller = Arc::new(Caller { proxy: proxy.to_owned(), connection: Mutex::new(None) });
    let rate: u32 = rate.parse()?;
    for id in 0..streams.parse::<u64>()? {
        let caller = Arc::clone(&caller);
        tokio::spawn(async move { caller.stream(id).await });
    }
    let mut due = tokio::time::interval(Duration::from_secs(1) / rate);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let mut told = std::pin::pin!(wire::input_closed());
    let mut id = 0;
    let mut calls = tokio::task::JoinSet::new();
    println!("calling");
    loop {
        tokio::select! {
            at = due.tick() => {
                let caller = Arc::clone(&caller);
                calls.spawn(async move { caller.unary(id, at.into_std()).await });
                id += 1;
            }
            () = &mut told => break,
        }
    }
    // What is in flight ends within its deadline, so this wait is bounded.
    while calls.join_next().await.is_some() {}
    println!("done");
    Ok(())
}

fn print(event: &Event) {
    println!(
        "{}",
        serde_json::to_string(event).expect("an event has nothing that JSON cannot say")
    );
}

impl Caller {
    async fn client(&self) -> Outcome<SendRequest<Bytes>> {
        let mut connection = self.connection.lock().await;
        if let Some(client) = connection.take()
            && let Ok(client) = client.ready().await
        {
            *connection = Some(client.clone());
            return Ok(client);
        }
        let client = wire::connect(&self.proxy).await?;
        *connection = Some(client.clone());
        Ok(client)
    }

    /// One call. Every second may be repeated by the network, and says so.
    async fn unary(&self, id: u64, due: Instant) {
        let idempotent = id.is_multiple_of(2);
        let ended = tokio::time::timeout(DEADLINE + GRACE, self.attempt(id, idempotent)).await;
        let (status, micro_error, instance) = match ended {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => (BROKEN, Some(error.to_string()), None),
            Err(_) => (HUNG, None, None),
        };
        let took_us = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
        print(&Event {
            kind: Kind::Unary,
            at_us: now_us(),
            id,
            took_us,
            status,
            micro_error,
            instance,
            idempotent,
        });
    }

    async fn attempt(
        &self,
        id: u64,
        idempotent: bool,
    ) -> Outcome<(i32, Option<String>, Option<String>)> {
        let mut headers = vec![("grpc-timeout", format!("{}m", DEADLINE.as_millis()))];
        if idempotent {
            headers.push(("micro-idempotent", "true".to_owned()));
        }
        let message = format!("{id}");
        let client = self.client().await?;
        let (answer, _body) =
            wire::call(&client, &self.proxy, "Unary", &headers, message.as_bytes()).await?;
        let answer = answer.await?;
        let instance =
            answer.headers().get("instance").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let early = wire::status(answer.headers());
        let mut messages = Messages::new(answer.into_body());
        while let Some(echoed) = messages.next().await? {
            if echoed != message.as_bytes() {
                return Err("the answer belongs to another call".into());
            }
        }
        let told = wire::status(&messages.trailers().await?).or(early);
        let (status, micro_error) = told.ok_or("an answer without a status")?;
        Ok((status, micro_error, instance))
    }

    /// A stream of numbers, opened again whenever it ends. It never ends by itself.
    async fn stream(&self, id: u64) {
        loop {
            let opened = Instant::now();
            let (status, micro_error) = match self.listen(id).await {
                Ok(told) => told,
                Err(error) => (BROKEN, Some(error.to_string())),
            };
            let took_us = u64::try_from(opened.elapsed().as_micros()).unwrap_or(u64::MAX);
            print(&Event {
                kind: Kind::StreamEnd,
                at_us: now_us(),
                id,
                took_us,
                status,
                micro_error,
                instance: None,
                idempotent: false,
            });
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn listen(&self, id: u64) -> Outcome<(i32, Option<String>)> {
        let client = self.client().await?;
        let (answer, _body) = wire::call(&client, &self.proxy, "Ticks", &[], b"").await?;
        let answer = answer.await?;
        let instance =
            answer.headers().get("instance").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let early = wire::status(answer.headers());
        let mut messages = Messages::new(answer.into_body());
        let (mut expected, mut before) = (0u64, Instant::now());
        while let Some(message) = messages.next().await? {
            if message.as_ref() != expected.to_be_bytes() {
                return Err(format!("message {expected} of stream {id} is missing").into());
            }
            expected += 1;
            let took_us = u64::try_from(before.elapsed().as_micros()).unwrap_or(u64::MAX);
            before = Instant::now();
            print(&Event {
                kind: Kind::Message,
                at_us: now_us(),
                id,
                took_us,
                status: 0,
                micro_error: None,
                instance: instance.clone(),
                idempotent: false,
            });
        }
        let told = wire::status(&messages.trailers().await?).or(early);
        told.ok_or_else(|| "a stream ended without a status".into())
    }
}
