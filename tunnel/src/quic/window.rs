//! A congestion window that lets probes through.
//!
//! While a path is silent, what is in flight fills the window, and the pings that would notice
//! that the path is back could not be sent; the probe timer of QUIC doubles to many seconds in the
//! meantime. RFC 9002 §7.5 exempts probes from the window. So the window opens for the packet of
//! one ping at a time, and is that of CUBIC (RFC 9438) otherwise.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, Cubic, CubicConfig};
use quinn_proto::RttEstimator;

/// Larger than anything in flight. Above 32 bits, pacing is off too.
const WIDE: u64 = 1 << 40;

/// Opens the window of one connection for one packet.
#[derive(Clone, Debug)]
pub(super) struct Gate(Arc<AtomicBool>);

impl Gate {
    /// The gate of `connection`, if its window is of this module.
    pub(super) fn of(connection: &quinn::Connection) -> Option<Self> {
        let window = connection.congestion_state().into_any().downcast::<Window>().ok()?;
        Some(Self(Arc::clone(&window.open)))
    }

    pub(super) fn open(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
pub(super) struct Factory(Arc<CubicConfig>);

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        let cubic = Arc::clone(&self.0).build(now, mtu).into_any().downcast::<Cubic>();
        let cubic = cubic.expect("the configuration of CUBIC builds CUBIC");
        Box::new(Window { cubic, open: Arc::default() })
    }
}

#[derive(Clone)]
struct Window {
    cubic: Box<Cubic>,
    open: Arc<AtomicBool>,
}

impl Controller for Window {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        if self.open.load(Ordering::Relaxed) {
            self.open.store(false, Ordering::Relaxed);
        }
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.cubic.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.cubic.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        if self.open.load(Ordering::Relaxed) { WIDE } else { self.cubic.window() }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.cubic.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
