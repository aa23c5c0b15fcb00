//! Lists as tables for people: left-aligned columns, two spaces between, nothing drawn.

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use super::text;

/// One column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its head, in capitals.
    pub head: &'static str,
    /// Whether only `-o wide` shows it.
    pub wide: bool,
}

impl Column {
    /// A column that is always shown.
    #[must_use]
    pub const fn new(head: &'static str) -> Self {
        Self { head, wide: false }
    }

    /// A column that only `-o wide` shows.
    #[must_use]
    pub const fn wide(head: &'static str) -> Self {
        Self { head, wide: true }
    }
}

/// A list of things, in both its forms.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The kind of the JSON document.
    pub kind: &'static str,
    /// The things, for programs.
    pub items: Vec<Value>,
    /// What people see of them.
    pub columns: &'static [Column],
    /// A row a thing, a cell a column; the first cell is its name.
    pub rows: Vec<Vec<String>>,
    /// What is said when there are none: never an empty success.
    pub empty: String,
}

impl Listing {
    /// The table, each line with its newline.
    #[must_use]
    pub fn to_text(&self, wide: bool, headers: bool) -> String {
        let shown = |at: &usize| wide || !self.columns[*at].wide;
        let columns: Vec<usize> = (0..self.columns.len()).filter(shown).collect();
        let mut table = plain_table();
        if headers {
            table.add_row(columns.iter().map(|at| self.columns[*at].head));
        }
        for row in &self.rows {
            table.add_row(columns.iter().map(|at| match row.get(*at).map(String::as_str) {
                None | Some("") => "-".to_owned(),
                Some(cell) => text::plain(cell),
            }));
        }
        trimmed(&table)
    }
}

/// Rows of words, aligned: for what is a table without heads.
#[must_use]
pub fn aligned(rows: &[Vec<String>]) -> String {
    let mut table = plain_table();
    for row in rows {
        table.add_row(row.iter().map(|cell| text::plain(cell)));
    }
    trimmed(&table)
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// The lines of a table without what the drawing adds at both ends.
fn trimmed(table: &Table) -> String {
    let lines = table.lines().map(|line| {
        let line = line.trim_end();
        format!("{}\n", line.strip_prefix(' ').unwrap_or(line))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing() -> Listing {
        const COLUMNS: &[Column] =
            &[Column::new("NODE"), Column::new("REGION"), Column::wide("ID")];
        Listing {
            kind: "NodeList",
            items: Vec::new(),
            columns: COLUMNS,
            rows: vec![
                vec!["ada-laptop".into(), "home".into(), "7f3k".into()],
                vec!["fra-1".into(), String::new(), "b\u{1b}[31m".into()],
            ],
            empty: String::new(),
        }
    }

    #[test]
    fn columns_are_aligned_and_empty_cells_are_a_dash() {
        assert_eq!(
            listing().to_text(false, true),
            "NODE        REGION\nada-laptop  home\nfra-1       -\n"
        );
    }

    #[test]
    fn wide_shows_more_and_no_headers_shows_less() {
        assert_eq!(
            listing().to_text(true, false),
            "ada-laptop  home  7f3k\nfra-1       -     b\u{fffd}[31m\n"
        );
    }
}
