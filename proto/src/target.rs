//! What a call asks for.

use std::fmt;
use std::str::FromStr;

use crate::name::{BadName, ServiceName};
use crate::selector::{BadSelector, Selector};

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
            write!(f, "{}", self.service)?;
            for (at, one) in self.selector.iter().enumerate() {
                write!(f, "{}{one}", if at == 0 { '?' } else { '&' })?;
            }
            Ok(())
        }
    }
}

/// Why a text is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// What stands before the `?` is no service.
    #[error(transparent)]
    Name(#[from] BadName),
    /// What stands after it is no selector.
    #[error(transparent)]
    Selector(#[from] BadSelector),
}

impl FromStr for Target {
    type Err = BadTarget;

    /// From `service?version=v2&region=eu`.
    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let (service, selector) = text.split_once('?').unwrap_or((text, ""));
        Ok(Self { service: service.parse()?, selector: selector.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_as_it_is_written() {
        let text = "pay/orders?version in (>=1,<2)&region=eu?&!old";
        let target: Target = text.parse().unwrap();
        assert_eq!((target.selector.iter().len(), target.to_string()), (3, text.to_owned()));
        assert!("a b?x=1".parse::<Target>().is_err());
        assert!("a?x>1".parse::<Target>().is_err());
    }
}
