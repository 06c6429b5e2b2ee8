//! What lists and single things look like: aligned text for people, one JSON object a line for programs.

use std::io;

use clap::ValueEnum;
use serde::Serialize;

use super::terminal;
use crate::model::escape::Escape;

/// The most characters of one cell; what is longer is cut, and `show` or `--format json` tells it whole.
const MAX_CELL: usize = 60;

/// `--format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Format {
    /// For people
    #[default]
    Text,
    /// For programs: one JSON object a line
    Json,
}

/// Prints a list: a table with these headings, or one object a line. `empty` is told when there is nothing.
pub(super) fn list<T: Serialize, const N: usize>(
    format: Format,
    items: &[T],
    headings: [&str; N],
    cells: impl Fn(&T) -> [String; N],
    empty: &str,
) -> io::Result<()> {
    if format == Format::Json {
        return items.iter().try_for_each(json);
    }
    if items.is_empty() {
        return terminal::line(empty);
    }
    let mut rows = vec![headings.map(str::to_owned)];
    rows.extend(items.iter().map(|item| cells(item).map(|cell| cut(&Escape::Line.apply(&cell), MAX_CELL))));
    aligned(&rows).iter().try_for_each(terminal::line)
}

/// Prints named values, one a line; those that are empty are left out.
pub(super) fn fields(pairs: &[(&str, String)]) -> io::Result<()> {
    let told = pairs.iter().filter(|(_, value)| !value.is_empty());
    let width = told.clone().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    for (name, value) in told {
        terminal::line(format!("{name:width$}  {}", Escape::Line.apply(value)))?;
    }
    Ok(())
}

/// Prints one JSON object on one line.
pub(super) fn json(value: &impl Serialize) -> io::Result<()> {
    terminal::line(serde_json::to_string(value).map_err(io::Error::other)?)
}

/// `3 ready, 1 failed`
pub(super) fn counts(counts: &[(String, u64)]) -> String {
    let words: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {}", word.replace('_', " "))).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

/// A noun with its number.
pub(super) fn plural(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// At most `most` characters; one that is longer ends in `…`.
pub(super) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
    }
}

fn aligned<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; N]| {
        let padded: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["ID", "STATE", "WHY"], ["1", "ok", ""], ["1000", "größer", "x"]].map(|row| row.map(str::to_owned));
        assert_eq!(aligned(&rows), ["ID    STATE   WHY", "1     ok", "1000  größer  x"]);
    }

    #[test]
    fn long_text_is_cut_and_says_so() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abcde…");
    }
}
