//! Text from outside is escaped for the place it goes to. These are the places.
//!
//! Three things hold at each of them. A value stays in its line, because a name with a line break could write lines that
//! look like ours. It holds no control characters. And nothing in it is hidden: no character reorders what a person
//! reads or shows as nothing. Letters of different scripts that look alike stay: no escaping tells them apart.

/// The destination of an interpolated value. The literal text of a template is the operator's and stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// Goes where no reader interprets it (an id, a plain-text description).
    Plain,
    /// Slack mrkdwn: `&`, `<` and `>` become entities, so that no mention, link or channel call can be written (Slack,
    /// formatting text for app surfaces). That bare addresses are not linked is the message's own setting.
    SlackMrkdwn,
    /// HTML text or attribute value.
    Html,
    /// A mail header, a subject, a short description: a removed control character leaves a space, so that words stay apart.
    Line,
    /// One segment of a URL's path: encoded, so that no value ends the segment or begins a query. An empty one is an error of
    /// the template, because it would name another thing: everything below instead of one.
    PathSegment,
}

impl Escape {
    /// Escapes one interpolated value for this destination.
    pub fn apply(self, text: &str) -> String {
        if self == Self::PathSegment {
            return percent_encoded(&Self::Plain.apply(text));
        }
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            match (self, c) {
                (_, '\n' | '\t' | '\u{2028}' | '\u{2029}') => out.push(' '),
                (Self::Line, c) if c.is_control() => out.push(' '),
                (_, c) if c.is_control() || is_hidden(c) => {}
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

/// Encodes all but the characters that need it nowhere in a URL (RFC 3986, unreserved characters).
pub fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Characters that reorder what a person reads, and those that show as nothing: a name could otherwise show as something
/// it is not, or carry words that only a machine reads (the tags from U+E0000 spell ASCII). The joiners U+200C and U+200D
/// are letters' own in many scripts and stay.
pub fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\u{00AD}'
            | '\u{034F}'
            | '\u{061C}'
            | '\u{115F}'
            | '\u{1160}'
            | '\u{180E}'
            | '\u{200B}'
            | '\u{200E}'
            | '\u{200F}'
            | '\u{202A}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}'
            | '\u{3164}'
            | '\u{FEFF}'
            | '\u{FFA0}'
            | '\u{FFF9}'..='\u{FFFB}'
            | '\u{1D173}'..='\u{1D17A}'
            | '\u{E0000}'..='\u{E007F}'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Escape; 4] = [Escape::Plain, Escape::SlackMrkdwn, Escape::Html, Escape::Line];

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
    fn every_line_break_and_tab_becomes_one_space() {
        for escape in ALL {
            check(escape, "a\n\tb\u{2028}\u{2029}c", "a  b  c");
            check(escape, "a\r\nb", if escape == Escape::Line { "a  b" } else { "a b" });
        }
    }

    #[test]
    fn only_what_the_destination_reads_is_escaped() {
        check(Escape::Plain, "<a href=\"x\">'&'", "<a href=\"x\">'&'");
        check(Escape::Line, "<a href=\"x\">'&'", "<a href=\"x\">'&'");
        check(Escape::SlackMrkdwn, "\"'", "\"'");
    }

    #[test]
    fn exactly_these_characters_are_hidden() {
        let hidden: Vec<u32> = ('\0'..=char::MAX).filter(|c| is_hidden(*c)).map(u32::from).collect();
        let single = [0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x180E, 0x200B, 0x200E, 0x200F, 0x3164, 0xFEFF, 0xFFA0];
        let runs = [0x202A..=0x202E, 0x2060..=0x206F, 0xFFF9..=0xFFFB, 0x1D173..=0x1D17A, 0xE0000..=0xE007F];
        let mut expected: Vec<u32> = runs.into_iter().flatten().chain(single).collect();
        expected.sort_unstable();
        assert_eq!(hidden, expected);
    }

    #[test]
    fn reordering_characters_are_removed_everywhere() {
        for escape in ALL {
            check(escape, "a\u{202E}b\u{1b}", if escape == Escape::Line { "ab " } else { "ab" });
            check(escape, "pay\u{200B}roll\u{FEFF} \u{E0041}\u{E007F}\u{3164}\u{AD}", "payroll ");
            check(escape, "\u{9b}31m\u{7f}", if escape == Escape::Line { " 31m " } else { "31m" });
        }
    }

    #[test]
    fn a_value_cannot_begin_a_line_of_its_own() {
        for escape in ALL {
            check(escape, "Ann\nApproved by: security\u{2028}x\ty", "Ann Approved by: security x y");
        }
    }

    #[test]
    fn names_of_all_scripts_stay_as_they_are() {
        for name in ["Zoë Müller", "محمد", "می\u{200C}خواهم", "क्\u{200D}ष", "李雷", "👩\u{200D}💻"]
        {
            ALL.iter().for_each(|escape| check(*escape, name, name));
        }
    }

    /// Reads entities as Slack and HTML readers do.
    fn unescaped(text: &str) -> String {
        let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
        entities.iter().fold(text.to_owned(), |text, (entity, c)| text.replace(entity, c))
    }

    proptest! {
        #[test]
        fn a_segment_of_a_path_holds_nothing_that_ends_it(text in any::<String>()) {
            let out = Escape::PathSegment.apply(&text);
            prop_assert!(out.chars().all(|c| c.is_ascii_alphanumeric() || "-._~%".contains(c)), "{out:?}");
        }

        #[test]
        fn whatever_comes_nothing_of_it_is_live(text in "(\\PC|[\\x00-\\x1f\\x7f-\\x9f\u{202e}\u{200b}\u{2028}<>&|!@#\"'\\[\\]()]){0,60}") {
            for escape in ALL {
                let out = escape.apply(&text);
                let is_clean = |c: char| !c.is_control() && !is_hidden(c) && !matches!(c, '\u{2028}' | '\u{2029}');
                prop_assert!(out.chars().all(is_clean), "{escape:?}: {out:?}");
                let shown: String = match escape {
                    // Nobody reads it as it is; its own test says what is left.
                    Escape::PathSegment => continue,
                    Escape::Plain | Escape::Line => out,
                    Escape::SlackMrkdwn | Escape::Html => {
                        prop_assert!(!out.contains(['<', '>']), "{out:?}");
                        if escape == Escape::Html {
                            prop_assert!(!out.contains(['"', '\'']), "{out:?}");
                        }
                        unescaped(&out)
                    }
                };
                // What a person reads is what was written, but for what cannot be seen and for white space.
                let visible = |text: &str| text.chars().filter(|c| is_clean(*c) && !c.is_whitespace()).collect::<String>();
                prop_assert_eq!(visible(&shown), visible(&text));
            }
        }
    }
}
