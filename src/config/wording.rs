//! Mistakes of shape in the words of the person who wrote the file: TOML's and serde's sentences, turned into what is wrong
//! and what to do.

use crate::model::similar::closest;

/// A line for people: bounded, without control characters, and without the values of keys that may hold secrets.
pub(super) fn excerpt(line: &str) -> Option<String> {
    let lower = line.to_lowercase();
    let suspicious = ["token", "password", "secret", "webhook", "xoxb"].iter().any(|word| lower.contains(word));
    let shown = match line.split_once('=') {
        Some((key, _)) if suspicious => format!("{}= …", key.trim_start()),
        None if suspicious => return None,
        _ => line.trim().to_owned(),
    };
    let shown: String = shown.chars().take(120).map(|c| if c.is_control() { ' ' } else { c }).collect();
    (!shown.is_empty()).then_some(shown)
}

/// What to do about text that is not TOML.
pub(super) fn syntax_remedy(message: &str, line: &str) -> &'static str {
    if message.contains("duplicate key") {
        "keep one of the two; a section or key stands in a file only once, playbooks and steps are [[playbook]] and \
         [[playbook.step]] with two brackets"
    } else if line.contains(['\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}']) {
        "replace the typographic quotes by plain ones"
    } else {
        "write key = value; strings, durations and addresses stand in quotes, conditions best in single quotes"
    }
}

/// What to write for a key that has to be there.
pub(super) fn missing_remedy(key: &str) -> String {
    match key {
        "org_url" => "write org_url = \"https://example.okta.com\" with your org".to_owned(),
        "webhook_url" => {
            "write webhook_url = { credential = \"teams-webhook\" }, { file = \"…\" } or { env = \"…\" }".to_owned()
        }
        "base_url" => "write base_url = \"https://…\"".to_owned(),
        "url" => "write url = \"https://…\"".to_owned(),
        "on" => "write on = [\"user.risk.detect\"] with the event types it answers".to_owned(),
        "name" => "give it a name that stays the same: it is part of the idempotency key".to_owned(),
        "action" => "write action = \"connector.noun.verb\", such as \"okta.group.add_user\"".to_owned(),
        other => format!("write {other} = …, as in config.example.toml"),
    }
}

/// What is wrong with the place a secret comes from. Serde's sentence is repeated only where it speaks of a key.
pub(super) fn secret_words(message: &str, at_key: bool) -> (String, String) {
    let what = if at_key && message.starts_with("unknown variant") {
        message.split(',').next().unwrap_or_default().replace("unknown variant", "a secret does not come from")
    } else if message.starts_with("wanted exactly") {
        "a secret comes from exactly one place".to_owned()
    } else {
        "a secret never stands in the configuration itself".to_owned()
    };
    (what, "write { file = \"…\" }, { credential = \"…\" } or { env = \"…\" }".to_owned())
}

/// Serde's sentence in words of the file's writer, and what to do.
pub(super) fn words(message: &str) -> (String, String) {
    if let Some(rest) = message.strip_prefix("unknown variant `") {
        let word = rest.split('`').next().unwrap_or_default();
        let known = listed(message);
        // Codes such as RS256 and HS256 look alike and are nothing like each other: there only the case can be a slip.
        let is_code = |word: &&str| word.ends_with(|c: char| c.is_ascii_digit());
        let meant = match known.iter().all(is_code) {
            true => known.iter().copied().find(|known| known.eq_ignore_ascii_case(word)),
            false => closest(word, known.iter().copied()),
        };
        let remedy = match meant {
            Some(known) => format!("did you mean \"{known}\"?"),
            None => {
                format!("use one of: {}", known.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", "))
            }
        };
        return (format!("`{word}` is not one of the choices"), remedy);
    }
    if let Some(rest) = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "))
        && let Some((got, expected)) = rest.rsplit_once(", expected ")
    {
        let expected = match expected {
            "a sequence" => "a list in brackets (sections that repeat have two: [[playbook]])",
            "a string" => "a string in quotes; durations are strings with a unit, such as \"30s\"",
            "f32" | "f64" => "a number without quotes, such as 0.5",
            "a boolean" => "true or false, without quotes",
            number if number.starts_with(['u', 'i']) && number.len() <= 5 => "a whole number, without quotes",
            other => other,
        };
        let got = match got {
            "sequence" => "a list".to_owned(),
            "map" => "a table".to_owned(),
            // Serde names the kind and the value: `string "half"`.
            other => format!("the {other}"),
        };
        return (format!("this is {got}"), format!("write {expected}"));
    }
    match message.split_once("; ") {
        Some((message, remedy)) => (message.to_owned(), remedy.to_owned()),
        None if message.contains("is not a duration") => {
            (message.to_owned(), "write a number and its unit: ms, s, m, h or d".to_owned())
        }
        None => (message.to_owned(), "compare it with config.example.toml".to_owned()),
    }
}

/// The names behind `expected` in serde's sentence.
pub(super) fn listed(message: &str) -> Vec<&str> {
    let expected = message.split_once("expected").map_or("", |(_, expected)| expected);
    expected.split('`').skip(1).step_by(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_look_alike_are_not_taken_for_each_other() {
        let remedy =
            |word: &str| words(&format!("unknown variant `{word}`, expected one of `RS256`, `RS384`, `ES256`")).1;
        for other in ["HS256", "PS256"] {
            assert_eq!(remedy(other), "use one of: \"RS256\", \"RS384\", \"ES256\"");
        }
        assert_eq!(remedy("rs256"), "did you mean \"RS256\"?");
    }

    #[test]
    fn an_excerpt_keeps_values_of_secret_looking_keys_back() {
        assert_eq!(excerpt("  page_size = 7 ").as_deref(), Some("page_size = 7"));
        assert_eq!(excerpt("  api_token = \"hunter2\"").as_deref(), Some("api_token = …"));
        assert_eq!(excerpt("password hunter2"), None);
        assert_eq!(excerpt("   "), None);
    }
}
