//! Every bound of the router, by name.

/// How much the router holds at most. What gives way at each limit is said with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Records of one origin, tombstones included. Above it new keys of that origin are refused.
    pub records_per_origin: usize,
    /// Services of one origin that are offered. Above it new ones of that origin are refused.
    pub services_per_origin: usize,
    /// Records of all origins. Above it what nobody can reach is dropped, oldest first; then new
    /// keys are refused.
    pub records: usize,
    /// Bytes of all records as they travel; the same gives way as for `records`.
    pub bytes: usize,
    /// Bytes of the rules of others and its own that a node keeps. Above it more are not kept.
    pub rules: usize,
    /// Bytes of these that one author may have written. Above it more of that author are not kept.
    pub rules_per_author: usize,
    /// Neighbour links. Above it a new link is closed.
    pub links: usize,
    /// Records waiting to be sent on one link. Above it they are dropped, and found again by a
    /// digest.
    pub backlog: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            records_per_origin: 10_000,
            services_per_origin: 1_000,
            records: 2_000_000,
            bytes: 1 << 30,
            rules: 4 << 20,
            rules_per_author: 1 << 20,
            links: 10_000,
            backlog: 65_536,
        }
    }
}
