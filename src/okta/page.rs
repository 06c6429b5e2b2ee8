//! `Link` headers (RFC 8288) and the check that a page URL still belongs to the org. Pure.

use thiserror::Error;
use url::Url;

/// The target of the first link with `rel=next`, verbatim, from all `link` header lines of an answer.
///
/// Okta sends one line for each link (Okta API reference, pagination); links that share a line are found as well.
pub fn next_link<'a>(lines: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    lines.into_iter().find_map(|line| Links { rest: line }.find(|link| link.is_next).map(|link| link.target))
}

/// Checks that a page URL leads to the org: scheme, host and port are its own, and it carries no user name.
pub fn check_origin(next: &str, org: &Url) -> Result<Url, ForeignNext> {
    let foreign = || ForeignNext { org: org.origin().ascii_serialization() };
    let url = Url::parse(next).map_err(|_| foreign())?;
    let same = url.scheme() == org.scheme()
        && url.host_str().is_some()
        && url.host_str() == org.host_str()
        && url.port_or_known_default() == org.port_or_known_default()
        && url.username().is_empty()
        && url.password().is_none();
    if same { Ok(url) } else { Err(foreign()) }
}

/// A page URL that leads away from the org. The URL itself is not repeated: it is a stranger's text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the next page lies outside {org}; no token is sent there")]
pub struct ForeignNext {
    org: String,
}

struct Link<'a> {
    target: &'a str,
    is_next: bool,
}

/// The links of one header line. What does not follow the grammar ends the line: nothing behind it can be trusted.
struct Links<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Links<'a> {
    type Item = Link<'a>;

    fn next(&mut self) -> Option<Link<'a>> {
        let start = self.rest.trim_start_matches(|c: char| c == ',' || c.is_ascii_whitespace());
        let (target, mut rest) = start.strip_prefix('<')?.split_once('>')?;
        let mut rel = None;
        loop {
            rest = rest.trim_ascii_start();
            let Some(after) = rest.strip_prefix(';') else { break };
            let (name, value, after) = parameter(after);
            // RFC 8288: a second `rel` is ignored.
            if rel.is_none() && name.eq_ignore_ascii_case("rel") {
                rel = Some(value);
            }
            rest = after;
        }
        self.rest = if rest.starts_with(',') { rest } else { "" };
        let is_next = rel.is_some_and(|rel| rel.split_ascii_whitespace().any(|word| word.eq_ignore_ascii_case("next")));
        Some(Link { target: target.trim_ascii(), is_next })
    }
}

/// One parameter behind a `;`: its name, its value without quotes, and what follows.
fn parameter(text: &str) -> (&str, &str, &str) {
    let text = text.trim_ascii_start();
    let (name, rest) = split_before(text, |c| matches!(c, '=' | ';' | ','));
    let Some(value) = rest.strip_prefix('=').map(str::trim_ascii_start) else { return (name.trim_ascii(), "", rest) };
    let (value, rest) = match value.strip_prefix('"') {
        Some(quoted) => quoted_string(quoted),
        None => split_before(value, |c| matches!(c, ';' | ',')),
    };
    (name.trim_ascii(), value.trim_ascii(), rest)
}

/// Splits behind the quote that ends a quoted string; a backslash takes the next character along. Escapes are left in
/// the value: no relation that is looked for has one.
fn quoted_string(text: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = text.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    let (value, rest) = text.split_at_checked(end.unwrap_or(text.len())).unwrap_or((text, ""));
    (value, rest.strip_prefix('"').unwrap_or(""))
}

fn split_before(text: &str, stops: impl Fn(char) -> bool) -> (&str, &str) {
    text.find(stops).and_then(|at| text.split_at_checked(at)).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(lines: &[&str], expected: Option<&str>) {
        assert_eq!(next_link(lines.iter().copied()), expected);
    }

    const SELF: &str = r#"<https://example.okta.com/api/v1/logs?limit=20>; rel="self""#;
    const NEXT: &str = r#"<https://example.okta.com/api/v1/logs?limit=20&after=1627500044869_1>; rel="next""#;
    const URL: &str = "https://example.okta.com/api/v1/logs?limit=20&after=1627500044869_1";

    #[test]
    fn next_is_found_on_a_line_of_its_own_and_among_others() {
        check(&[SELF, NEXT], Some(URL));
        check(&[&format!("{SELF}, {NEXT}")], Some(URL));
        check(&[&format!("{NEXT},{SELF}")], Some(URL));
        check(&[SELF], None);
        check(&[], None);
    }

    #[test]
    fn commas_and_semicolons_inside_the_url_and_quotes_split_nothing() {
        check(
            &[r#"<https://a.b/?x=1,2;rel="next">; rel="self", <https://a.b/?y=,;>; rel="next""#],
            Some("https://a.b/?y=,;"),
        );
        check(
            &[r#"<https://a.b/1>; title="a, <b>; rel=next \" ,"; rel=self, <https://a.b/2>; rel=next"#],
            Some("https://a.b/2"),
        );
    }

    #[test]
    fn a_quote_ends_where_no_backslash_takes_it_along() {
        for title in ["", "a", "ab", r#"a\"b"#, r"\\", r"ab\\", r#"\\\""#, r"a, b; c\\"] {
            check(&[&format!(r#"<https://a.b/>; title="{title}"; rel=next"#)], Some("https://a.b/"));
        }
        check(&[r#"<https://a.b/>; title="a\"; rel=next"#], None);
    }

    #[test]
    fn rel_may_be_unquoted_of_any_case_and_one_of_several() {
        check(&["<https://a.b/>;REL=Next"], Some("https://a.b/"));
        check(&[r#"<https://a.b/>; type=x; rel = "last  NEXT" ; foo"#], Some("https://a.b/"));
        check(&[r#"<https://a.b/>; rel="nextish""#], None);
        check(&["<https://a.b/>; rel=self; rel=next"], None);
    }

    #[test]
    fn what_is_no_link_gives_none() {
        for line in
            ["", "<", "<>", "next", "rel=next", "<https://a.b/", "<https://a.b/>; rel", "<a> junk, <b>; rel=next"]
        {
            check(&[line], None);
        }
    }

    #[test]
    fn only_the_orgs_own_origin_passes() {
        let org = Url::parse("https://example.okta.com").unwrap();
        for good in ["https://example.okta.com/x?y", "https://EXAMPLE.okta.com:443/x", URL] {
            assert!(check_origin(good, &org).is_ok(), "{good}");
        }
        for bad in [
            "http://example.okta.com/x",
            "https://example.okta.com:8443/x",
            "https://example.okta.com.evil.net/x",
            "https://evil.net/?https://example.okta.com/",
            "https://example.okta.com@evil.net/x",
            "https://user@example.okta.com/x",
            "https://:password@example.okta.com/x",
            "//example.okta.com/x",
            "/api/v1/logs",
            "",
        ] {
            let error = check_origin(bad, &org).unwrap_err();
            assert!(!error.to_string().contains("evil"), "{bad}");
        }
    }

    #[test]
    fn an_org_without_a_host_has_no_pages() {
        let org = Url::parse("file:///etc").unwrap();
        assert!(check_origin("file:///etc/passwd", &org).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_survived(lines in prop::collection::vec("[<>;,=\"\\\\ a-znext/ü]{0,60}|\\PC{0,60}", 0..4)) {
            let next = next_link(lines.iter().map(String::as_str));
            if let Some(next) = next {
                let _ = check_origin(next, &Url::parse("https://example.okta.com").unwrap());
                prop_assert!(lines.iter().any(|line| line.contains(next)));
            }
        }

        #[test]
        fn a_well_formed_next_is_always_found(query in "[a-z0-9,;=&]{0,20}", others in 0..3_usize, joined: bool) {
            let target = format!("https://a.b/?{query}");
            let mut lines = vec![r#"<https://a.b/self>; rel="self""#.to_owned(); others];
            lines.push(format!("<{target}>; rel=\"next\""));
            if joined {
                lines = vec![lines.join(", ")];
            }
            prop_assert_eq!(next_link(lines.iter().map(String::as_str)), Some(target.as_str()));
        }
    }
}
