//! The client of NATS of one bridge: how it is let in, and how it stands.
//!
//! It connects again by itself, and subscribes again to what it had; what it is told about that ends
//! in one value, the newest [`Standing`], so that nothing of it is missed by who is busy.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ClientError, ConnectOptions, Event, Server};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::{Counts, Fate, Toward};
use crate::config::bridge::{Bridge, Login};
use crate::error::Problem;

/// Messages on their way to the socket; then the mailbox is left as it is.
const SENDING: usize = 256;
/// Messages of one subscription that wait to be published in the network; then new ones are dropped.
const RECEIVING: usize = 10_000;
/// Between two attempts to connect: at first, doubled with each, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// How long a server may take to say who it is and to let a client in.
const CONNECT: Duration = Duration::from_secs(10);
/// After so long without a word the server is asked; after two, it is taken for gone.
const PING: Duration = Duration::from_secs(10);

/// How the connection stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// There is one.
    pub connected: bool,
    /// How often there was a new one.
    pub connects: u64,
    /// What stood in the way last, told before it is tried again.
    pub trouble: Option<String>,
    /// Of what sort that was, where no more is known.
    sort: Option<String>,
    /// There will be none any more.
    pub over: bool,
}

/// A client for a bridge, which begins to connect.
///
/// # Errors
/// M5003 when what it is to be let in with cannot be used.
pub(crate) async fn start(
    bridge: &Bridge,
    counts: &Counts,
) -> Result<(Client, watch::Receiver<Standing>), Problem> {
    let (told, standing) = watch::channel(Standing::default());
    let told = Arc::new(told);
    let again = Arc::clone(&told);
    let (called, counts) = (bridge.name.clone(), counts.clone());
    let options = options(bridge)?
        .name(format!("micro network, bridge {}", bridge.name))
        .retry_on_initial_connect()
        // What this bridge published is not for it; of a queue group another member gets it.
        .no_echo()
        .connection_timeout(CONNECT)
        .ping_interval(PING)
        .client_capacity(SENDING)
        .subscription_capacity(RECEIVING)
        .reconnect_delay_callback(delay)
        .event_callback(move |event| {
            if let Event::SlowConsumer(_) = event {
                counts.add(&called, Toward::Network, Fate::Dropped, 1);
            }
            told.send_modify(|standing| standing.take(event));
            std::future::ready(())
        })
        // Asked before each attempt, and knows why the one before failed. Chooses none itself.
        .reconnect_to_server_callback(move |servers, _| {
            again.send_modify(|standing| standing.failed(&servers));
            std::future::ready(None)
        });
    let urls: Result<Vec<async_nats::ServerAddr>, _> =
        bridge.urls.iter().map(|url| url.parse()).collect();
    let refused = |why: String| super::carry::refused(bridge, why);
    let urls = urls.map_err(|error| refused(error.to_string()))?;
    let client = options.connect(urls).await.map_err(|error| refused(error.to_string()))?;
    Ok((client, standing))
}

fn options(bridge: &Bridge) -> Result<ConnectOptions, Problem> {
    let mut options = match &bridge.login {
        Login::Nobody => ConnectOptions::new(),
        Login::Token(token) => ConnectOptions::with_token(token.expose().to_owned()),
        Login::User(user, password) => {
            ConnectOptions::with_user_and_password(user.clone(), password.expose().to_owned())
        }
        Login::Key(seed) => ConnectOptions::with_nkey(seed.expose().to_owned()),
        Login::Credentials(text) => {
            // A secret is without the line's end that stands behind the last line of such a file, and
            // nothing of it is in the words, which are shown.
            let text = Zeroizing::new(format!("{}\n", text.expose()));
            ConnectOptions::with_credentials(&text).map_err(|_| {
                let why = "its credentials are no credentials file of NATS";
                super::carry::refused(bridge, why.to_owned())
            })?
        }
    };
    if let Some(ca) = &bridge.ca {
        options = options.add_root_certificates(ca.clone()).require_tls(true);
    }
    if let Some((certificate, key)) = &bridge.certificate {
        options =
            options.add_client_certificate(certificate.clone(), key.clone()).require_tls(true);
    }
    Ok(options)
}

/// Waits until there is no connection.
pub(crate) async fn gone(standing: &mut watch::Receiver<Standing>) {
    // Nobody to tell it: the client has ended.
    let _ = standing.wait_for(|standing| !standing.connected).await;
}

fn delay(attempts: usize) -> Duration {
    let doubled = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    match attempts {
        0 | 1 => Duration::ZERO,
        _ => (RETRY.0 * 2_u32.pow(doubled)).min(RETRY.1),
    }
}

impl Standing {
    fn take(&mut self, event: Event) {
        match event {
            Event::Connected => {
                self.connected = true;
                self.connects += 1;
                (self.trouble, self.sort) = (None, None);
            }
            Event::Disconnected => self.connected = false,
            Event::Closed | Event::ClientError(ClientError::MaxReconnects) => {
                (self.connected, self.over) = (false, true);
            }
            Event::ServerError(error) => self.sort = Some(error.to_string()),
            Event::ClientError(error) => self.sort = Some(error.to_string()),
            // Counted, and no news of the connection.
            Event::SlowConsumer(_) | Event::LameDuckMode | Event::Draining => {}
        }
    }

    /// What it was, of each server that was tried and is not connected.
    fn failed(&mut self, servers: &[Server]) {
        let each = |server: &Server| {
            let why = server.last_error.as_ref()?;
            Some(format!("{}:{}: {why}", server.addr.host(), server.addr.port()))
        };
        let all: Vec<String> = servers.iter().filter_map(each).collect();
        let known = Some(all.join("; ")).filter(|all| !all.is_empty());
        self.trouble = known.or_else(|| self.sort.take()).or_else(|| self.trouble.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_become_seldom_and_do_not_end() {
        assert_eq!((delay(0), delay(1)), (Duration::ZERO, Duration::ZERO));
        assert!(delay(2) > Duration::ZERO && delay(3) > delay(2));
        assert_eq!((delay(40), delay(usize::MAX)), (RETRY.1, RETRY.1));
    }

    #[test]
    fn the_newest_word_counts() {
        let mut standing = Standing::default();
        let error = |text: &str| Event::ClientError(ClientError::Other(text.to_owned()));
        for event in [error("refused"), Event::Connected, Event::Disconnected, error("gone")] {
            standing.take(event);
        }
        assert!(!standing.connected && !standing.over);
        assert_eq!((standing.connects, &standing.trouble), (1, &None), "the next attempt tells");
        standing.failed(&[]);
        assert_eq!(standing.trouble.as_deref(), Some("nats: gone"));
        standing.failed(&[]);
        assert_eq!(
            standing.trouble.as_deref(),
            Some("nats: gone"),
            "until something else is known"
        );
        standing.take(Event::Connected);
        assert_eq!((standing.connected, standing.trouble), (true, None));
    }
}
