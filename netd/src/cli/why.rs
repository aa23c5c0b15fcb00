//! `micro network why SERVICE`: why a call would go where it would go.

use clap::Args;
use proto::Target;

use super::Global;
use crate::api;
use crate::client;
use crate::error::{Exit, Problem};
use crate::output::{self, Column, Listing, text};

const COLUMNS: &[Column] = &[
    Column::new(""),
    Column::new("INSTANCE"),
    Column::new("NODE"),
    Column::new("COST"),
    Column::new("VERDICT"),
    Column::wide("ID"),
];

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

/// `micro network why SERVICE`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  micro network why shop                           every instance, and what is found of it
  micro network why shop --select version=v2
  micro network why shop --header x-dev=ada        as rules see the call")]
pub struct WhyArgs {
    #[command(flatten)]
    asked: Asked,
}

/// Prints every candidate with its verdict, and what rules had to do with it.
///
/// # Errors
/// M6010 when no node runs here, M1203 when the service is not known.
pub async fn run(args: WhyArgs, global: &Global) -> Result<Exit, Problem> {
    let request = args.asked.request(0)?;
    let document: serde_json::Value = global.client()?.post("/v1/why", &request).await?;
    let output = global.output();
    if output.is_json() {
        output.verbatim(&document)?;
        return Ok(Exit::Done);
    }
    let why: api::Why = client::read(document)?;
    let wide = output.format == output::Format::Wide;
    let rows = why.candidates.iter().map(row).collect();
    let (items, empty) = (Vec::new(), String::new());
    let table = Listing { kind: "Why", items, columns: COLUMNS, rows, empty };
    let table = table.to_text(wide, output.headers);
    let lines = output::table::aligned(&rules(&why));
    output::print(&format!("{}\n\n{table}\n{lines}", text::plain(&head(&why))))?;
    Ok(Exit::Done)
}

/// Where the call goes, in a line.
fn head(why: &api::Why) -> String {
    let mark = if why.asked.is_empty() { "" } else { "?" };
    let asked = format!("{}{mark}{}", why.service, why.asked);
    let arrow = if text::is_utf8() { "→" } else { "->" };
    let nearest: Vec<_> = why.candidates.iter().filter(|one| one.nearest).collect();
    let of = format!("chosen from {}", why.candidates.len());
    match (&nearest[..], &why.none) {
        ([one], _) => format!("{asked} {arrow} {} {}     {of}", one.node_name, one.address),
        ([], Some(none)) => format!("{asked} {arrow} none: {none}"),
        ([], None) => format!("{asked} {arrow} none: no path leads to those that match"),
        (several, _) => {
            format!("{asked} {arrow} the best of {} near ones     {of}", several.len())
        }
    }
}

fn row(one: &api::WhyCandidate) -> Vec<String> {
    let marks = text::marks();
    let mark = match (one.nearest, one.verdict.starts_with("in")) {
        (true, _) => marks.good,
        (false, true) => " ",
        (false, false) => marks.bad,
    };
    vec![
        mark.to_owned(),
        one.address.clone(),
        one.node_name.clone(),
        text::cost(one.cost_us),
        one.verdict.clone(),
        one.instance.clone(),
    ]
}

/// What rules had to do with it, and what else narrowed the choice: a word and what it says.
#[must_use]
pub fn rules(why: &api::Why) -> Vec<Vec<String>> {
    let line = |word: &str, says: String| vec![word.to_owned(), says];
    let mut all = Vec::new();
    all.push(line(
        "rules",
        match why.revision {
            Some(revision) if why.rules.is_empty() => {
                format!(
                    "none for {}; revision {revision} of {} took them away",
                    why.service, why.author_name
                )
            }
            Some(revision) => format!("revision {revision}, written by {}", why.author_name),
            None => format!("none for {}", why.service),
        },
    ));
    for one in &why.rules {
        let says = if one.matches { "decides".to_owned() } else { not_for(&one.why) };
        all.push(line("", format!("{}: {says}", one.rule)));
    }
    all.extend(why.subset.iter().map(|subset| line("subset", subset.clone())));
    if why.diverted {
        let until = why.decides.as_ref().and_then(|rule| rule.then.divert.as_ref());
        let until = until.map(|divert| {
            use crate::rules::words::Text as _;
            format!("until {}", divert.until.0.write())
        });
        all.push(line("diverted", until.unwrap_or_default()));
    }
    all.extend(why.narrowed.iter().map(|one| line("prefers", one.by.clone())));
    all
}

fn not_for(why: &str) -> String {
    format!("not for this call, by its {why}")
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
