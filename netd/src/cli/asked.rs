//! A call that is asked about, as it is typed: shared by `why`, `trace` and `rules test`.

use clap::Args;
use proto::Target;

use crate::api;
use crate::error::{Exit, Problem};

/// A call that is asked about.
#[derive(Debug, Args)]
pub struct Asked {
    /// Its name, with what the instance must be like if wanted: 'shop?version=v2'.
    #[arg(value_name = "SERVICE")]
    service: String,
    /// What the instance must be like, or would better be: version=v2,region=eu?
    #[arg(long, value_name = "LABELS")]
    select: Option<String>,
    /// A header of the call; may be given several times.
    #[arg(long = "header", short = 'H', value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// `Struct.Method` of gRPC, or the path of an HTTP request.
    #[arg(long, value_name = "ENDPOINT")]
    endpoint: Option<String>,
    /// The calling service.
    #[arg(long, value_name = "SERVICE")]
    caller: Option<String>,
}

impl Asked {
    /// The question to the node.
    ///
    /// # Errors
    /// M4001 when the service or what is asked of it cannot be read.
    pub fn request(self, throws: u32) -> Result<api::WhyRequest, Problem> {
        let target: Target = self.service.parse().map_err(|why: proto::target::BadTarget| {
            Problem::new("M4001", Exit::Usage, format!("{:?} is no service", self.service))
                .why(why.to_string())
                .attempt("micro services", "lists all names")
        })?;
        let own = target.selector.to_string();
        let select: Vec<String> =
            [Some(own), self.select].into_iter().flatten().filter(|all| !all.is_empty()).collect();
        Ok(api::WhyRequest {
            service: target.service.to_string(),
            select: select.join(","),
            endpoint: self.endpoint.unwrap_or_default(),
            headers: self.headers,
            caller: self.caller.unwrap_or_default(),
            throws,
        })
    }
}

/// A header as `name=value` or `name: value`.
fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once(['=', ':'])
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| format!("{text:?} is no header: write x-dev=ada"))?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_written_either_way() {
        let meant = ("x-dev".to_owned(), "ada".to_owned());
        assert_eq!(header("X-Dev=ada"), Ok(meant.clone()));
        assert_eq!(header("x-dev: ada"), Ok(meant));
        assert!(header("x-dev").is_err() && header("=x").is_err());
    }
}
