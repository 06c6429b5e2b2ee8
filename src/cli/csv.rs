//! Comma-separated values (RFC 4180), for spreadsheets.
//!
//! A spreadsheet takes a cell that begins with `=`, `+`, `-` or `@` for a formula, which can run programs and send cells
//! away (OWASP, CSV injection). An apostrophe in front makes it text. The same holds behind a `;` inside a cell,
//! because in many countries that is what spreadsheets divide cells at.

use crate::model::escape::Escape;

/// One row, without its line break.
pub(super) fn row(cells: &[String]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| quoted(&inert(&Escape::Line.apply(cell)))).collect();
    cells.join(",")
}

/// The text with an apostrophe in front of every place at which a spreadsheet would see a formula.
fn inert(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut may_begin = true;
    for c in text.chars() {
        if may_begin && matches!(c, '=' | '+' | '-' | '@' | '＝' | '＋' | '－' | '＠') {
            out.push('\'');
        }
        // Spreadsheets drop white space and quotes before they look at a cell.
        may_begin = c == ';' || may_begin && (c.is_whitespace() || matches!(c, '"' | '\''));
        out.push(c);
    }
    out
}

/// The text in quotes if it needs them.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '/');
    if text.chars().all(is_plain) { text.to_owned() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(cells: &[&str], expected: &str) {
        assert_eq!(row(&cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn cells_are_quoted_where_they_need_it() {
        check(
            &["1", "", "user.risk.detect", "a,b", "say \"x\"", "two words"],
            r#"1,,user.risk.detect,"a,b","say ""x""","two words""#,
        );
    }

    #[test]
    fn a_cell_is_one_line() {
        check(&["a\r\n1,2", "\u{1b}[31m"], "\"a  1,2\",\" [31m\"");
    }

    #[test]
    fn what_a_spreadsheet_would_calculate_is_text() {
        for formula in ["=1+1", "+1", "-1+1", "@SUM(A1)", "＝1+1"] {
            check(&[formula], &format!("\"'{formula}\""));
        }
        check(&["\t=1"], "\" '=1\"");
        check(&["\"=1"], "\"\"\"'=1\"");
        check(&["a;=cmd|' /C calc'!A1"], "\"a;'=cmd|' /C calc'!A1\"");
        check(&["a; -1"], "\"a; '-1\"");
        check(&["a-b", "2026-11-02T09:12:44Z", "a=b"], "a-b,2026-11-02T09:12:44Z,\"a=b\"");
    }

    /// Reads a row as a spreadsheet that divides at `separator` does.
    fn read(row: &str, separator: char) -> Vec<String> {
        let mut cells = vec![String::new()];
        let mut chars = row.chars().peekable();
        let mut quoted = false;
        while let Some(c) = chars.next() {
            let cell = cells.last_mut().unwrap();
            match c {
                '"' if quoted && chars.peek() == Some(&'"') => cell.push(chars.next().unwrap()),
                '"' if quoted => quoted = false,
                '"' if cell.is_empty() => quoted = true,
                c if c == separator && !quoted => cells.push(String::new()),
                c => cell.push(c),
            }
        }
        cells
    }

    proptest! {
        #[test]
        fn no_cell_is_ever_a_formula(cells in prop::collection::vec("(\\PC|[;,\"'=+@\t\r\n -]){0,20}", 1..4)) {
            let row = row(&cells);
            prop_assert!(!row.contains(['\n', '\r', '\t']));
            let read_back = read(&row, ',');
            prop_assert_eq!(read_back.len(), cells.len());
            for cell in read_back.iter().chain(&read(&row, ';')) {
                let begins = cell.trim_start_matches(|c: char| c.is_whitespace() || c == '"').chars().next();
                prop_assert!(!begins.is_some_and(|c| "=+-@＝＋－＠".contains(c)), "{:?} in {:?}", cell, row);
            }
        }
    }
}
