//! JSON from outside that is a little broken. A user may put half a character into his own name, and some encoders pass it
//! on; the strict reading of the whole record would then fail, and with it everything that is to be done about him.

use std::borrow::Cow;

use serde::de::DeserializeOwned;

/// Reads JSON. Escapes of half a surrogate pair, which stand for no character, are read as U+FFFD.
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(text).or_else(|error| match mended(text) {
        Cow::Borrowed(_) => Err(error),
        Cow::Owned(mended) => serde_json::from_str(&mended),
    })
}

/// The same for bytes; those that are no UTF-8 are read as U+FFFD as well.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(bytes).or_else(|_| from_str(&String::from_utf8_lossy(bytes)))
}

/// The text with each half of a surrogate pair replaced; borrowed when there is none.
fn mended(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        let first = unit(escape);
        let second = escape.get(6..).and_then(unit);
        let (taken, replaced) = match (first, second) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => (12, false),
            (Some(0xD800..=0xDFFF), _) => (6, true),
            // Whatever is escaped, it is not looked at again: a backslash may stand behind a backslash.
            _ => (1 + escape.chars().nth(1).map_or(0, char::len_utf8), false),
        };
        let (taken, after) = escape.split_at_checked(taken).unwrap_or((escape, ""));
        out.push_str(before);
        out.push_str(if replaced { "\\ufffd" } else { taken });
        rest = after;
    }
    out.push_str(rest);
    if out == text { Cow::Borrowed(text) } else { Cow::Owned(out) }
}

/// The UTF-16 unit of a `\uXXXX` at the start of a text.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(from_str::<String>(text).unwrap(), expected);
    }

    #[test]
    fn half_a_pair_is_read_as_the_replacement_character() {
        check(r#""a\ud800b""#, "a\u{fffd}b");
        check(r#""\uDC00\udc00""#, "\u{fffd}\u{fffd}");
        check(r#""\ud800\ud83d\ude00""#, "\u{fffd}\u{1f600}");
        check(r#""\ud800\u0041""#, "\u{fffd}A");
        check(r#""\ud800\\ud800""#, "\u{fffd}\\ud800");
        assert_eq!(from_slice::<String>(b"\"a\xff\\ud800\"").unwrap(), "a\u{fffd}\u{fffd}");
    }

    #[test]
    fn what_is_no_json_stays_none() {
        for text in ["", "{", r#""\ud800"#, r#""\ud8"#, r#""\"#, r#""\uZZZZ\ud800""#] {
            assert!(from_str::<String>(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn good_json_is_never_changed(value: String) {
            let text = serde_json::to_string(&value).unwrap();
            prop_assert!(matches!(mended(&text), Cow::Borrowed(_)));
        }

        #[test]
        fn any_text_is_survived(text in "[\\\\ud8DcCfF0-9\"é]{0,40}") {
            let _ = from_str::<String>(&text);
        }
    }
}
