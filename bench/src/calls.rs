//! Load of unary calls: closed (the next call waits for the last) or open (calls leave when they
//! are due, whatever became of those before, and their latency counts from when they were due).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::timeout_at;

use crate::Error;
use crate::client::{Client, Failure};
use crate::cpu::{Meter, Watched, share};
use crate::latency::Latency;
use crate::outcome::CallsOutcome;
use crate::pace::Pace;

/// Calls that may be unanswered at a time in open load; more are counted as errors, not sent.
const OUTSTANDING: usize = 20_000;
/// How long calls may still be answered after the measurement.
const GRACE: Duration = Duration::from_secs(5);
/// Failed calls in a row that end a worker of closed load: it would only count to a million.
const PATIENCE: u32 = 100;

/// Who is called, and with what.
#[derive(Clone, Debug)]
pub struct Callee {
    /// Where connections go.
    pub at: SocketAddr,
    /// The `:authority` of calls.
    pub authority: String,
    /// The `:path` of calls.
    pub path: String,
    /// Message size in bytes.
    pub size: usize,
    /// TCP connections the calls are spread over.
    pub connections: usize,
}

/// How calls are made.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// So many at a time.
    Closed {
        /// Calls in flight.
        in_flight: usize,
    },
    /// So many a second.
    Open {
        /// Calls due per second.
        rate: f64,
    },
}

/// What is cut off, and what is measured.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Cut off at the start.
    pub warm_up: Duration,
    /// Measured after that.
    pub length: Duration,
}

/// What was counted between the cut and the end, by the moment each call was due.
struct Board {
    cut: Instant,
    end: Instant,
    latency: Latency,
    behind: Latency,
    errors: BTreeMap<String, u64>,
}

impl Board {
    fn new(window: Window) -> Arc<Mutex<Self>> {
        let cut = Instant::now() + window.warm_up;
        Arc::new(Mutex::new(Self {
            cut,
            end: cut + window.length,
            latency: Latency::default(),
            behind: Latency::default(),
            errors: BTreeMap::new(),
        }))
    }

    fn count(&mut self, due: Instant, answer: Result<(), String>) {
        if due < self.cut || due >= self.end {
            return;
        }
        match answer {
            Ok(()) => self.latency.record(due.elapsed()),
            Err(kind) => self.fail(kind, 1),
        }
    }

    fn fail(&mut self, kind: String, times: u64) {
        *self.errors.entry(kind).or_default() += times;
    }
}

/// Something that can be done again and again, many times at once.
pub(crate) trait Call: Send + Sync + 'static {
    /// Does it once.
    fn call(&self) -> impl Future<Output = Result<(), Failure>> + Send;
}

impl Call for Client {
    async fn call(&self) -> Result<(), Failure> {
        Self::call(self).await
    }
}

/// Makes calls and counts them; the histogram comes along for plots.
pub async fn run(
    callee: &Callee,
    load: Load,
    window: Window,
    watched: &[Watched],
) -> Result<(CallsOutcome, Latency), Error> {
    run_with(connect(callee)?, callee.size, load, window, watched).await
}

/// [`run`] for calls of any kind, of messages of `size` bytes.
pub(crate) async fn run_with(
    clients: Vec<Arc<impl Call>>,
    size: usize,
    load: Load,
    window: Window,
    watched: &[Watched],
) -> Result<(CallsOutcome, Latency), Error> {
    // Before the window, so that calls are due in all of it however late this machine is.
    let (kind, in_flight, asked_rate, pace) = match load {
        Load::Closed { in_flight } => ("closed", in_flight, 0.0, None),
        Load::Open { rate } => {
            let interval = Duration::try_from_secs_f64(1.0 / rate).map_err(Error::at("rate"))?;
            ("open", 0, rate, Some(Pace::every(interval)?))
        }
    };
    let board = Board::new(window);
    let (cut, end) = {
        let board = open(&board);
        (board.cut, board.end)
    };
    let mut calls = JoinSet::new();
    let meter = async {
        tokio::time::sleep_until(cut.into()).await;
        let meter = Meter::start(watched)?;
        tokio::time::sleep_until(end.into()).await;
        meter.stop()
    };
    let drive = async {
        if let Some(pace) = pace {
            return when_due(&clients, pace, &board, end, &mut calls).await;
        }
        for worker in 0..in_flight {
            let client = Arc::clone(&clients[worker % clients.len()]);
            calls.spawn(in_turn(client, Arc::clone(&board), end));
        }
        Ok(())
    };
    let (cpu, driven) = tokio::join!(meter, drive);
    driven?;
    let unanswered = settle(calls, end + GRACE).await;

    let mut board = open(&board);
    if unanswered > 0 {
        board.fail("unanswered".to_owned(), unanswered);
    }
    let done = board.latency.count();
    let outcome = CallsOutcome {
        load: kind.to_owned(),
        in_flight,
        asked_rate,
        size,
        seconds: window.length.as_secs_f64(),
        warm_up: window.warm_up.as_secs_f64(),
        calls: done,
        rate: done as f64 / window.length.as_secs_f64(),
        errors: std::mem::take(&mut board.errors),
        latency_us: board.latency.percentiles(),
        behind_us: matches!(load, Load::Open { .. }).then(|| board.behind.percentiles()),
        cpu: share(cpu?, done as f64 / 1000.0),
    };
    Ok((outcome, std::mem::take(&mut board.latency)))
}

fn connect(callee: &Callee) -> Result<Vec<Arc<Client>>, Error> {
    let one = || Client::new(callee.at, &callee.authority, &callee.path, callee.size).map(Arc::new);
    (0..callee.connections.max(1)).map(|_| one()).collect()
}

/// A worker of closed load: one call after the other.
async fn in_turn(client: Arc<impl Call>, board: Arc<Mutex<Board>>, end: Instant) {
    let mut failed = 0;
    loop {
        let begun = Instant::now();
        if begun >= end {
            return;
        }
        let answer = client.call().await;
        failed = if answer.is_ok() { 0 } else { failed + 1 };
        open(&board).count(begun, answer.map_err(|failure| failure.to_string()));
        if failed >= PATIENCE {
            open(&board).fail("worker gave up".to_owned(), 1);
            return;
        }
    }
}

/// Open load: each call leaves when it is due.
async fn when_due(
    clients: &[Arc<impl Call>],
    mut pace: Pace,
    board: &Arc<Mutex<Board>>,
    end: Instant,
    calls: &mut JoinSet<()>,
) -> Result<(), Error> {
    let mut sent = 0_usize;
    loop {
        for due in pace.due().await? {
            if due >= end {
                return Ok(());
            }
            while calls.try_join_next().is_some() {}
            if calls.len() >= OUTSTANDING {
                open(board).count(due, Err("not sent: too many outstanding".to_owned()));
                continue;
            }
            let client = Arc::clone(&clients[sent % clients.len()]);
            sent += 1;
            let board = Arc::clone(board);
            calls.spawn(async move {
                let behind = due.elapsed();
                let answer = client.call().await.map_err(|failure: Failure| failure.to_string());
                let mut board = open(&board);
                if due >= board.cut && due < board.end {
                    board.behind.record(behind);
                }
                board.count(due, answer);
            });
        }
    }
}

/// Waits for the last answers; returns how many never came.
async fn settle(mut calls: JoinSet<()>, until: Instant) -> u64 {
    while let Ok(Some(_)) = timeout_at(until.into(), calls.join_next()).await {}
    calls.len() as u64
}

fn open(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    const SHORT: Window =
        Window { warm_up: Duration::from_millis(20), length: Duration::from_millis(200) };

    fn callee(at: SocketAddr) -> Callee {
        let (authority, path) = ("echo".to_owned(), "/bench.echo.Echo/Call".to_owned());
        Callee { at, authority, path, size: 128, connections: 2 }
    }

    async fn echo() -> Callee {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let callee = callee(listener.local_addr().unwrap());
        tokio::spawn(crate::echo::serve(listener));
        callee
    }

    #[tokio::test]
    async fn closed_load_counts_what_it_did() {
        let watched = [Watched::myself("load")];
        let load = Load::Closed { in_flight: 4 };
        let (outcome, latency) = run(&echo().await, load, SHORT, &watched).await.unwrap();
        assert!(outcome.calls > 0 && outcome.errors.is_empty(), "{outcome:?}");
        assert_eq!(outcome.calls, latency.count());
        assert!(outcome.latency_us.p50 > 0.0 && outcome.latency_us.p50 <= outcome.latency_us.max);
        assert_eq!(outcome.cpu.len(), 1);
    }

    #[tokio::test]
    async fn open_load_makes_every_call_that_is_due() {
        let load = Load::Open { rate: 1000.0 };
        let (outcome, _) = run(&echo().await, load, SHORT, &[]).await.unwrap();
        assert!(outcome.errors.is_empty(), "{outcome:?}");
        assert!((199..=201).contains(&outcome.calls), "{outcome:?}");
        assert!(outcome.behind_us.is_some());
    }

    #[tokio::test]
    async fn a_stall_counts_for_every_call_that_was_due_meanwhile() {
        const STALL: Duration = Duration::from_millis(150);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let callee = Callee { connections: 1, ..callee(listener.local_addr().unwrap()) };
        let stalled = async move {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::time::sleep(STALL).await;
            crate::echo::connection(socket).await;
        };
        tokio::spawn(stalled);
        let window = Window { warm_up: Duration::ZERO, ..SHORT };
        let (outcome, _) = run(&callee, Load::Open { rate: 500.0 }, window, &[]).await.unwrap();
        assert!(outcome.errors.is_empty(), "{outcome:?}");
        assert!((98..=101).contains(&outcome.calls), "{outcome:?}");
        // A call due at t is answered STALL - t later at the soonest, and half were due by 100 ms.
        assert!(outcome.latency_us.max >= 140_000.0, "{outcome:?}");
        assert!(outcome.latency_us.p50 >= 40_000.0, "{outcome:?}");
    }

    #[tokio::test]
    async fn workers_give_up_when_nobody_is_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let callee = callee(listener.local_addr().unwrap());
        drop(listener);
        let load = Load::Closed { in_flight: 1 };
        let window = Window { warm_up: Duration::ZERO, ..SHORT };
        let (outcome, _) = run(&callee, load, window, &[]).await.unwrap();
        assert_eq!(outcome.calls, 0);
        assert_eq!(outcome.errors.get("connect"), Some(&u64::from(PATIENCE)), "{outcome:?}");
    }
}
