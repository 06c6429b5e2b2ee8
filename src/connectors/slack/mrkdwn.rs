//! Cutting a text of Slack's without breaking its markup.

use crate::connectors;

/// At most `most` characters; a text that is longer ends in `…`, and in neither half an entity such as `&am` nor half a
/// link.
pub(super) fn cut(text: &str, most: usize) -> String {
    if most == 0 {
        return String::new();
    }
    let short = connectors::cut(text, most);
    if short.len() == text.len() {
        return short;
    }
    let kept = short.strip_suffix('…').unwrap_or(&short);
    format!("{}…", whole(whole(kept, '&', ';', Some(6)), '<', '>', None))
}

/// At most `most` bytes, in the same way.
pub(super) fn cut_bytes(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let kept = text.floor_char_boundary(most.saturating_sub('…'.len_utf8()));
    let characters = text.get(..kept).unwrap_or_default().chars().count();
    cut(text, characters + 1)
}

/// The text without what begins with `open`, no longer ago than `longest` bytes, and does not end.
fn whole(text: &str, open: char, close: char, longest: Option<usize>) -> &str {
    match text.rfind(open) {
        Some(at)
            if !text.get(at..).is_some_and(|rest| rest.contains(close))
                && longest.is_none_or(|longest| text.len() - at < longest) =>
        {
            text.get(..at).unwrap_or_default()
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters_entities_and_links() {
        assert_eq!(cut("short &amp; sweet", 100), "short &amp; sweet");
        assert_eq!(cut(&"é".repeat(50), 40), format!("{}…", "é".repeat(39)));
        let long = format!("{}&amp;{}", "x".repeat(36), "y".repeat(50));
        assert_eq!(cut(&long, 40), format!("{}…", "x".repeat(36)));
        assert_eq!(cut(&long, 45), format!("{}&amp;yyy…", "x".repeat(36)));
        assert_eq!(cut("at <https://example.com|the example>", 20), "at …");
        assert_eq!(cut("at <https://e|e> and more of it", 20), "at <https://e|e> an…");
        assert_eq!(cut("anything", 0), "");
    }

    #[test]
    fn a_bound_in_bytes_is_kept_whatever_the_letters() {
        for text in ["x".repeat(50), "é".repeat(50), "𝄞".repeat(50), "&amp;".repeat(20)] {
            let short = cut_bytes(&text, 40);
            assert!(short.len() <= 40 && short.ends_with('…') && short.len() > 30, "{short}");
        }
        assert_eq!(cut_bytes("short", 5), "short");
    }
}
