//! The signals that a command is to hear of, although they were sent to the program that runs it.

use std::io::IsTerminal as _;

use futures_util::future::select_all;
use rustix::process::{Pid, Signal as Number, kill_process};
use tokio::process::Child;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::Problem;

/// All that are passed on.
const ALL: [(SignalKind, Number); 6] = [
    (SignalKind::terminate(), Number::TERM),
    (SignalKind::interrupt(), Number::INT),
    (SignalKind::quit(), Number::QUIT),
    (SignalKind::hangup(), Number::HUP),
    (SignalKind::user_defined1(), Number::USR1),
    (SignalKind::user_defined2(), Number::USR2),
];

/// Listens to them.
pub(super) struct Signals(Vec<(Signal, Number)>);

/// One that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked(Number);

impl Signals {
    /// From here on they end nothing by themselves.
    ///
    /// # Errors
    /// M6002 when the system refuses.
    pub(super) fn listen() -> Result<Self, Problem> {
        let listen = |(kind, number)| Ok((signal(kind)?, number));
        let all: std::io::Result<_> = ALL.into_iter().map(listen).collect();
        let all = all.map_err(|error| Problem::machine("signals cannot be listened to", &error))?;
        Ok(Self(all))
    }

    /// The next one. Safe to cancel: one that is not taken stays.
    pub(super) async fn next(&mut self) -> Asked {
        let each = self.0.iter_mut().map(|(signal, number)| {
            Box::pin(async {
                signal.recv().await;
                Asked(*number)
            })
        });
        select_all(each).await.0
    }

    /// The next one that asks for an end.
    pub(super) async fn end(&mut self) {
        while !self.next().await.ends() {}
    }
}

impl Asked {
    /// Whether the command is to end for good.
    pub(super) fn ends(self) -> bool {
        [Number::TERM, Number::INT, Number::QUIT, Number::HUP].contains(&self.0)
    }

    /// Sends it to the command, unless a terminal has done so: it tells all that run in it.
    pub(super) fn pass_on(self, child: &Child) {
        let of_terminal = [Number::INT, Number::QUIT].contains(&self.0);
        if of_terminal && std::io::stdin().is_terminal() {
            return;
        }
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = id.and_then(Pid::from_raw) {
            // It may be ending already.
            let _ = kill_process(pid, self.0);
        }
    }
}
