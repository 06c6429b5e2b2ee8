//! What lists and single things look like: aligned text for people, one JSON object a line for programs.

use std::io;

use clap::ValueEnum;
use serde::Serialize;

use super::csv;
use super::terminal::{self, Width};
use crate::model::escape::Escape;

/// The most characters of one cell on a terminal whose width is not known; what is longer is cut, and `show` or
/// `--format json` tells it whole.
const MAX_CELL: usize = 60;
/// No cell is cut to less, however narrow the terminal: an id that is cut is of no use to anybody.
const MIN_CELL: usize = 20;
/// What stands between two columns.
const GAP: &str = "  ";

/// `--format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Format {
    /// For people
    #[default]
    Text,
    /// For programs: one JSON object a line
    Json,
}

/// `--format` of a list
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum ListFormat {
    /// For people
    #[default]
    Text,
    /// For programs: one JSON object a line
    Json,
    /// For spreadsheets: what would be a formula begins with an apostrophe
    Csv,
}

impl From<Format> for ListFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Text => Self::Text,
            Format::Json => Self::Json,
        }
    }
}

/// Prints a list: a table with these headings, one object a line, or comma-separated values. `empty` is told to people when
/// there is nothing. Cells are cut only for a terminal: what is piped somewhere is whole.
pub(super) fn list<T: Serialize, const N: usize>(
    format: ListFormat,
    items: &[T],
    headings: [&str; N],
    cells: impl Fn(&T) -> [String; N],
    empty: &str,
) -> io::Result<()> {
    match format {
        ListFormat::Json => items.iter().try_for_each(json),
        ListFormat::Text => table(items, headings, cells, empty, terminal::width()),
        ListFormat::Csv => {
            terminal::line(headings.map(str::to_lowercase).join(","))?;
            items.iter().try_for_each(|item| terminal::line(csv::row(&cells(item))))
        }
    }
}

/// Prints a table for people, in which nothing is cut.
pub(super) fn whole<T, const N: usize>(
    items: &[T],
    headings: [&str; N],
    cells: impl Fn(&T) -> [String; N],
    empty: &str,
) -> io::Result<()> {
    table(items, headings, cells, empty, Width::Unlimited)
}

fn table<T, const N: usize>(
    items: &[T],
    headings: [&str; N],
    cells: impl Fn(&T) -> [String; N],
    empty: &str,
    width: Width,
) -> io::Result<()> {
    if items.is_empty() {
        return terminal::line(empty);
    }
    let mut rows = vec![headings.map(str::to_owned)];
    rows.extend(items.iter().map(|item| cells(item).map(|cell| Escape::Line.apply(&cell))));
    if let Some(most) = most(&rows, width) {
        rows.iter_mut().flatten().for_each(|cell| *cell = cut(cell, most));
    }
    aligned(&rows).iter().try_for_each(terminal::line)
}

/// The most characters of a cell with which the rows fit; `None` when nothing has to be cut.
fn most<const N: usize>(rows: &[[String; N]], width: Width) -> Option<usize> {
    let columns = match width {
        Width::Unlimited => return None,
        Width::Unknown => return Some(MAX_CELL),
        Width::Columns(columns) => columns,
    };
    let widths = widths(rows);
    let widest = widths.iter().copied().max().unwrap_or_default();
    let room = columns.saturating_sub(GAP.len() * N.saturating_sub(1));
    let fits = |most: &usize| widths.iter().map(|width| width.min(most)).sum::<usize>() <= room;
    (MIN_CELL..=widest).rev().find(fits).or(Some(MIN_CELL)).filter(|most| *most < widest)
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
    terminal::json(&serde_json::to_string(value).map_err(io::Error::other)?)
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

/// A size as people say it.
pub(super) fn bytes(count: u64) -> String {
    const MIB: f64 = 1024.0 * 1024.0;
    let mib = count as f64 / MIB;
    if mib < 1024.0 { format!("{mib:.1} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}

/// At most `most` characters; one that is longer ends in `…`.
pub(super) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
    }
}

fn widths<const N: usize>(rows: &[[String; N]]) -> [usize; N] {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    widths
}

fn aligned<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let widths = widths(rows);
    let line = |row: &[String; N]| {
        let padded: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        padded.join(GAP).trim_end().to_owned()
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
    fn only_as_much_is_cut_as_the_terminal_asks_for() {
        let rows = [["ID".to_owned(), "WHY".to_owned()], ["7".to_owned(), "x".repeat(100)]];
        assert_eq!(most(&rows, Width::Unlimited), None);
        assert_eq!(most(&rows, Width::Unknown), Some(MAX_CELL));
        // Two columns and the gap between them.
        assert_eq!(most(&rows, Width::Columns(104)), None);
        assert_eq!(most(&rows, Width::Columns(103)), Some(99));
        assert_eq!(most(&rows, Width::Columns(10)), Some(MIN_CELL));
    }

    #[test]
    fn long_text_is_cut_and_says_so() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abcde…");
    }
}
