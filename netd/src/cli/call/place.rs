//! Which service, and where: `service[@region][?label=value&…]`.

use std::fmt;
use std::str::FromStr;

use http::HeaderMap;
use http::header::HeaderValue;
use proto::selector::BadSelector;
use proto::{Selector, ServiceName};

use crate::error::{Exit, Problem};

/// A service with what its instance must be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its name.
    pub service: ServiceName,
    /// The region it must be in.
    region: Option<String>,
    /// What its labels must be.
    selector: Selector,
}

impl Place {
    /// The authority that names the service to the proxy.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.service.name()
    }

    /// All that its instance must be like, as a selector.
    #[must_use]
    pub fn select(&self) -> String {
        let own = self.selector.iter().map(ToString::to_string);
        let region = self.region.iter().map(|region| format!("region={region}"));
        own.chain(region).collect::<Vec<_>>().join(",")
    }

    /// Adds the headers that narrow the choice of the proxy.
    pub fn put(&self, headers: &mut HeaderMap) {
        let value = |text: &str| HeaderValue::from_str(text).ok();
        if self.service.namespace() != proto::name::DEFAULT_NAMESPACE
            && let Some(namespace) = value(self.service.namespace())
        {
            headers.insert("micro-namespace", namespace);
        }
        if let Some(region) = self.region.as_deref().and_then(value) {
            headers.insert("micro-region", region);
        }
        let selector = self.selector.to_string();
        if !selector.is_empty()
            && let Ok(selector) = HeaderValue::from_bytes(selector.as_bytes())
        {
            headers.insert("micro-select", selector);
        }
    }
}

impl FromStr for Place {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let wrong = |why: String| {
            Problem::new("M4001", Exit::Usage, format!("{text:?} is no service"))
                .why(why)
                .attempt("micro services", "lists all names")
        };
        let (rest, labels) = text.split_once('?').unwrap_or((text, ""));
        let (service, region) =
            rest.split_once('@').map_or((rest, None), |(service, region)| (service, Some(region)));
        let region = match region {
            Some(region) => {
                let raw = crate::config::values::Raw::Text(region.to_owned());
                Some(crate::config::values::region(&raw).map_err(wrong)?)
            }
            None => None,
        };
        let selector: Selector =
            labels.parse().map_err(|bad: BadSelector| wrong(bad.to_string()))?;
        let service = service.parse::<ServiceName>().map_err(|bad| wrong(bad.to_string()))?;
        Ok(Self { service, region, selector })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.service)?;
        if let Some(region) = &self.region {
            write!(f, "@{region}")?;
        }
        for (at, one) in self.selector.iter().enumerate() {
            write!(f, "{}{one}", if at == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_becomes_an_authority_and_filters() {
        let place: Place = "pay/orders@eu/fra?version=v2&tier=gold".parse().unwrap();
        let mut headers = HeaderMap::new();
        place.put(&mut headers);
        assert_eq!(place.authority(), "orders");
        assert_eq!(headers["micro-namespace"], "pay");
        assert_eq!(headers["micro-region"], "eu/fra");
        assert_eq!(headers["micro-select"], "version=v2,tier=gold");
        assert_eq!(place.select(), "version=v2,tier=gold,region=eu/fra");
        assert_eq!(place.to_string(), "pay/orders@eu/fra?version=v2&tier=gold");
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for bad in ["", "a b", "a@", "a?=x", "a\u{1b}"] {
            assert_eq!(bad.parse::<Place>().unwrap_err().exit, Exit::Usage, "{bad:?}");
        }
    }
}
