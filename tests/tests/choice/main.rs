//! Many callers and many instances in one thread, with the balancer that runs in production: slow,
//! failing, flapping and recovering instances, storms of retries, localities that overflow. Time is
//! a number and chance has a seed; what a run prints is the same on every machine.
//!
//! | Variable | Effect |
//! |---|---|
//! | `MICRO_SIM_SEED` | only this seed |
//! | `MICRO_SIM_FRESH` | one more seed, never tried before: any number, for example of the build |

mod instance;
mod policy;
mod report;
mod spill;
mod storm;
mod trouble;
mod world;
