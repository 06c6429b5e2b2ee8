//! Text from outside is escaped for the place it goes to. These are the places.

/// The destination of an interpolated value. The literal text of a template is the operator's and stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// Goes into a JSON field that no reader interprets (an id, a plain-text description): control characters other
    /// than line breaks and tabs are removed.
    Plain,
    /// Slack mrkdwn: `&`, `<` and `>` become entities, so that no mention, link or channel call can be written.
    SlackMrkdwn,
    /// HTML text or attribute value.
    Html,
    /// One line: a mail header, a subject, a short description. Every control character and line break becomes a space.
    Line,
}

impl Escape {
    /// Escapes one interpolated value for this destination.
    pub fn apply(self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            match (self, c) {
                (Self::Line, c) if c.is_control() || is_line_separator(c) => out.push(' '),
                (_, '\n' | '\t') => out.push(c),
                (_, c) if c.is_control() || is_bidi_control(c) => {}
                (Self::SlackMrkdwn | Self::Html, '&') => out.push_str("&amp;"),
                (Self::SlackMrkdwn | Self::Html, '<') => out.push_str("&lt;"),
                (Self::SlackMrkdwn | Self::Html, '>') => out.push_str("&gt;"),
                (Self::Html, '"') => out.push_str("&quot;"),
                (Self::Html, '\'') => out.push_str("&#39;"),
                (_, c) => out.push(c),
            }
        }
        out
    }
}

/// Characters that reorder what a person reads: a name could otherwise show as something it is not.
pub fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{061C}')
}

fn is_line_separator(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(escape: Escape, text: &str, expected: &str) {
        assert_eq!(escape.apply(text), expected);
    }

    #[test]
    fn slack_text_cannot_mention_or_link() {
        check(
            Escape::SlackMrkdwn,
            "<!channel> <http://evil|ok> a&b",
            "&lt;!channel&gt; &lt;http://evil|ok&gt; a&amp;b",
        );
    }

    #[test]
    fn html_cannot_open_a_tag_or_leave_an_attribute() {
        check(Escape::Html, "\"><script>'", "&quot;&gt;&lt;script&gt;&#39;");
    }

    #[test]
    fn a_line_stays_one_line() {
        check(Escape::Line, "a\r\nBcc: x\u{2028}y\u{7}", "a  Bcc: x y ");
    }

    #[test]
    fn a_text_of_several_lines_keeps_them() {
        for escape in [Escape::Plain, Escape::SlackMrkdwn, Escape::Html] {
            check(escape, "a\n\tb\r\u{2028}\u{2029}", "a\n\tb\u{2028}\u{2029}");
        }
        check(Escape::Line, "a\n\tb\u{2029}", "a  b ");
    }

    #[test]
    fn only_what_the_destination_reads_is_escaped() {
        check(Escape::Plain, "<a href=\"x\">'&'", "<a href=\"x\">'&'");
        check(Escape::Line, "<a href=\"x\">'&'", "<a href=\"x\">'&'");
        check(Escape::SlackMrkdwn, "\"'", "\"'");
    }

    #[test]
    fn every_character_that_reorders_is_known_and_no_other() {
        let known: Vec<u32> = ('\0'..=char::MAX).filter(|c| is_bidi_control(*c)).map(u32::from).collect();
        let expected: Vec<u32> =
            [0x061C..=0x061C, 0x200E..=0x200F, 0x202A..=0x202E, 0x2066..=0x2069].into_iter().flatten().collect();
        assert_eq!(known, expected);
    }

    #[test]
    fn reordering_characters_are_removed_everywhere() {
        for escape in [Escape::Plain, Escape::SlackMrkdwn, Escape::Html, Escape::Line] {
            check(escape, "a\u{202E}b\u{1b}", if escape == Escape::Line { "ab " } else { "ab" });
        }
    }
}
