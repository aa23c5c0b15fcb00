//! `micro errors CODE`: what a code means, what brings it about, and what makes it go away.

use clap::Args;
use serde_json::json;

use super::Global;
use crate::error::codes::{self, CODES, Explained};
use crate::error::{Exit, Problem};
use crate::output::{self, Column, Listing, text};

/// `micro errors [CODE]`
#[derive(Debug, Args)]
pub struct ErrorsArgs {
    /// The code, as in `error[M1203]`; without one all are listed.
    #[arg(value_name = "CODE")]
    code: Option<String>,
}

/// Explains one code, or lists all of them.
///
/// # Errors
/// M4001 with exit 4 when there is no such code.
pub fn run(args: ErrorsArgs, global: &Global) -> Result<Exit, Problem> {
    const COLUMNS: &[Column] = &[Column::new("CODE"), Column::new("MEANS"), Column::wide("FIX")];
    let output = global.output();
    let item = |one: &Explained| json!({ "code": one.code, "title": one.title, "cause": one.cause, "fix": one.fix });
    let Some(code) = args.code else {
        let row = |one: &Explained| vec![one.code.into(), one.title.into(), one.fix.into()];
        output.list(Listing {
            kind: "ErrorList",
            items: CODES.iter().map(item).collect(),
            columns: COLUMNS,
            rows: CODES.iter().map(row).collect(),
            empty: String::new(),
        })?;
        return Ok(Exit::Done);
    };
    let found = codes::explain(&code).ok_or_else(|| {
        Problem::new(
            "M4001",
            Exit::NotFound,
            format!("no error has the code {}", text::plain(&code)),
        )
        .why(format!("{} codes are known to this release", CODES.len()))
        .attempt("micro errors", "lists all of them")
    })?;
    if output.is_json() {
        output.document("ErrorCode", item(found))?;
    } else {
        output::print(&format!(
            "{}   {}\n  cause  {}\n  fix    {}\n",
            found.code, found.title, found.cause, found.fix
        ))?;
    }
    Ok(Exit::Done)
}
