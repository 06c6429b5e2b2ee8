//! Writing to people. Text from outside can carry control characters that move the cursor, recolour or hide what is shown;
//! they are taken out, also when the output is a pipe: behind it there is often `grep` or `head`, and then a terminal.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use crate::model::escape::is_hidden;

/// Writes a line to standard output. A reader that went away (`| head`) is no error.
pub fn line(text: impl AsRef<str>) -> io::Result<()> {
    verbatim(printable(text.as_ref()))
}

/// Writes JSON to standard output. What a terminal must not see is escaped, so that nothing of the text is lost.
pub(super) fn json(text: &str) -> io::Result<()> {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_printable(c) {
            out.push(c);
        } else {
            // Outside of strings JSON has no such characters.
            let mut units = [0; 2];
            c.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        }
    }
    verbatim(out)
}

/// Writes a line of our own to standard output, as it is.
pub(super) fn verbatim(text: impl AsRef<str>) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{}", text.as_ref()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// How much of a line standard output shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// It is no terminal, and nothing is lost.
    Unlimited,
    /// A terminal that does not say.
    Unknown,
    /// A terminal of so many columns.
    Columns(usize),
}

/// How much of a line standard output shows.
pub(super) fn width() -> Width {
    let out = io::stdout();
    if !out.is_terminal() {
        return Width::Unlimited;
    }
    match terminal_size::terminal_size_of(&out) {
        Some((terminal_size::Width(columns), _)) if columns > 0 => Width::Columns(columns.into()),
        _ => Width::Unknown,
    }
}

/// Writes a line to standard error.
pub fn note(text: impl AsRef<str>) {
    let mut err = io::stderr().lock();
    let text = printable(text.as_ref());
    // Nobody is left to tell when standard error is gone.
    let _ = writeln!(err, "{text}");
}

/// Asks a yes-or-no question on the terminal. Without one nobody can answer, and the answer is an error that names `--yes`.
pub(super) fn confirmed(question: &str) -> io::Result<bool> {
    if !io::stdin().is_terminal() {
        return Err(io::Error::other("there is no terminal to ask on; add --yes to go on without asking"));
    }
    let mut err = io::stderr().lock();
    write!(err, "{} [y/N] ", printable(question))?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().lock().take(64).read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// The text without control characters (other than line breaks and tabs) and without hidden ones.
pub fn printable(text: &str) -> String {
    text.chars().filter(|c| is_printable(*c)).collect()
}

fn is_printable(c: char) -> bool {
    matches!(c, '\n' | '\t') || !(c.is_control() || is_hidden(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_and_hidden_characters_are_taken_out() {
        assert_eq!(printable("a\u{1b}[31mb\u{7}\u{202E}c\n\td"), "a[31mbc\n\td");
        // The eight-bit forms, and a link whose address is not shown (OSC 8).
        assert_eq!(printable("\u{9b}2J\u{1b}]8;;http://evil.example\u{7}ok\u{200B}"), "2J]8;;http://evil.exampleok");
    }
}
