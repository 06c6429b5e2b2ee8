//! What a person who mistyped a name may have meant.

/// The candidate that differs from `word` by a few letters at most (put in, left out, changed, or two swapped).
pub fn closest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // Only the beginning of long words is worth the work.
    let word: String = word.chars().take(64).collect();
    let allowed = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(word: &str, expected: Option<&str>) {
        assert_eq!(closest(word, ["okta.group.add_user", "slack.message.post", "token", "on"]), expected, "{word}");
    }

    #[test]
    fn slips_are_understood_and_guesses_are_not_made() {
        check("okta.group.add_users", Some("okta.group.add_user"));
        check("slack.mesage.post", Some("slack.message.post"));
        check("tokne", Some("token"));
        check("tokxx", None);
        check("okta.grp.ad_usr", Some("okta.group.add_user"));
        check("no", Some("on"));
        check("pagerduty", None);
        check("", None);
    }
}
