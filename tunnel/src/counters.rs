//! What the tunnel counts.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts since the tunnel began. Gauges say so.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[$doc])* pub $name: Counter,)* }

        /// The values of [`Counters`] at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Snapshot { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            /// All of them, read one after the other.
            #[must_use]
            pub fn snapshot(&self) -> Snapshot {
                Snapshot { $($name: self.$name.get(),)* }
            }
        }

        impl Snapshot {
            /// Each value with its name, in a fixed order.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

/// One number that many tasks add to.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one away: for gauges.
    pub fn sub(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// The number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

counters! {
    /// Links that came up.
    links_up,
    /// Links that ended.
    links_down,
    /// Links that are up (gauge).
    links,
    /// Links closed for the other end had shown nothing valid in time.
    links_refused,
    /// Times a link was suspected.
    suspected,
    /// Times a suspected link recovered.
    recovered,
    /// Links found dead through the other node's restart.
    restarted,
    /// Connections turned away before a handshake, for there were too many.
    handshakes_refused,
    /// Connections asked to prove their address first.
    handshakes_retried,
    /// Dials begun.
    dials,
    /// Dials that failed.
    dials_failed,
    /// Calls refused here for their node had no usable link.
    opens_refused,
    /// Streams opened.
    streams_opened,
    /// Streams accepted.
    streams_accepted,
    /// Streams reset for nobody here could take them.
    streams_refused,
    /// Frames for a neighbour dropped for its queue was full; digests bring them back.
    frames_dropped,
    /// Grants given to new members.
    joins_granted,
    /// Requests to join that were refused.
    joins_refused,
    /// Grants renewed.
    renewals,
}
