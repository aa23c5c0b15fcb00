//! What a member may do.

/// What a member may do beyond calling and being called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Carries traffic of others, and holds the whole database.
    Relay,
    /// Stands between two networks.
    Gateway,
    /// Signs the grants of others.
    Issuer,
    /// May administer other nodes.
    Operator,
}

/// A set of roles. Unknown bits from newer nodes are kept and mean nothing here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles(u64);

impl Roles {
    /// No role: calls in its namespaces, offers what it was granted, relays nothing.
    pub const NONE: Self = Self(0);

    /// This and `role`.
    #[must_use]
    pub const fn with(self, role: Role) -> Self {
        Self(self.0 | 1 << role as u8)
    }

    /// Whether `role` is in the set.
    #[must_use]
    pub const fn has(self, role: Role) -> bool {
        self.0 & (1 << role as u8) != 0
    }

    /// From the bits of the wire.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits of the wire.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The names of the roles, for people: `relay,gateway`; `edge` when there are none.
    #[must_use]
    pub fn names(self) -> String {
        let all = [
            (Role::Relay, "relay"),
            (Role::Gateway, "gate"),
            (Role::Issuer, "issuer"),
            (Role::Operator, "operator"),
        ];
        let names: Vec<_> =
            all.into_iter().filter(|(role, _)| self.has(*role)).map(|(_, name)| name).collect();
        if names.is_empty() { "edge".to_owned() } else { names.join(",") }
    }
}
