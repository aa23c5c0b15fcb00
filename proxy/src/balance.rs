//! Which instance takes a call, and whether a call may be tried again: decided on the caller's node
//! by what it saw of its own calls and by the load that answers report.
//!
//! ```text
//! choose    locality (spill) → two at random → the lesser of expected waits, or the probe that is due
//! settle    outcome → latency, success, breaker, ejection, load of the locality, retry budget
//! leave     one call less
//! ```
//!
//! Everything here but [`shell`] is a pure core: the time comes in by arguments, chance from one
//! seed, and nothing is iterated in an order that hashing decides. One [`Balancer`] has one owner;
//! the data plane's is behind the lock of `shell`, taken once for a choice, once when the response
//! begins and once at the end.
//!
//! | Module | Holds |
//! |---|---|
//! | `balancer`, `service` | [`Balancer`]: instances by service, and the table they come from |
//! | `draw` | [`Pool`]: two random choices, localities in their order, the last resort |
//! | `settle` | what an outcome changes |
//! | `instance`, `latency`, `breaker` | one instance: expected wait, slow start, half-open probes |
//! | `locality` | the share of calls that spills over, moving smoothly |
//! | `budget` | retries and hedges, never more than a fifth of the calls |
//! | `verdict` | why an instance was chosen, or not |
//! | `recent` | what changed last among the instances of a service |
//! | `rate` | keyed rate limits |
//! | `saturation` | when this node itself has too much to do, and who is refused then |

mod balancer;
mod breaker;
mod budget;
mod chance;
mod draw;
mod instance;
mod latency;
mod locality;
mod rate;
mod recent;
mod saturation;
mod service;
mod settle;
pub(crate) mod shell;
#[cfg(test)]
mod tests;
mod verdict;

pub use balancer::{Balancer, NoChoice, Ticket};
pub use breaker::Why;
pub use budget::RetryBudget;
pub use chance::Chance;
pub use draw::Pool;
pub use latency::{P95, PeakEwma};
pub use locality::Spill;
pub use rate::{Rate, RateTable};
pub use recent::{Change, Fresh, What};
pub use saturation::{Admission, Saturation};
pub use settle::{Outcome, Report};
pub use verdict::{Considered, Verdict};
