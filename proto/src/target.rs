//! What a call asks for.

use std::fmt;

use crate::label::Selector;
use crate::name::ServiceName;

/// A service, and what its instance must be like.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The service.
    pub service: ServiceName,
    /// Labels the instance must carry.
    pub selector: Selector,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.selector.is_empty() {
            write!(f, "{}", self.service)
        } else {
            write!(f, "{}?{}", self.service, self.selector)
        }
    }
}
