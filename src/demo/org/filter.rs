//! The part of the SCIM filter language that asks for event types: `eventType eq "a" or (eventType eq "b")`.

/// Deeper parentheses are refused.
const MAX_DEPTH: usize = 32;

/// The event types that a query wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EventTypes {
    /// `None` wants everything.
    wanted: Option<Vec<String>>,
    /// The beginning of those that are not shown even so.
    hidden: Option<&'static str>,
}

impl EventTypes {
    /// Reads a filter; an empty one wants everything. The error is Okta's summary of what it does not like.
    pub(super) fn parse(filter: &str) -> Result<Self, String> {
        if filter.trim().is_empty() {
            return Ok(Self { wanted: None, hidden: None });
        }
        let tokens = tokens(filter)?;
        let mut parser = Parser { filter, tokens: &tokens, next: 0, types: Vec::new() };
        parser.alternatives(0)?;
        if parser.next < tokens.len() {
            return Err(parser.unexpected());
        }
        Ok(Self { wanted: Some(parser.types), hidden: None })
    }

    /// The same without those that begin like this.
    pub(super) fn without(self, beginning: &'static str) -> Self {
        Self { hidden: Some(beginning), ..self }
    }

    pub(super) fn contains(&self, event_type: &str) -> bool {
        self.hidden.is_none_or(|beginning| !event_type.starts_with(beginning))
            && self.wanted.as_ref().is_none_or(|types| types.iter().any(|wanted| wanted == event_type))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Open,
    Close,
    Word(String),
    Text(String),
}

fn tokens(filter: &str) -> Result<Vec<(usize, Token)>, String> {
    let mut found = Vec::new();
    let mut rest = filter;
    loop {
        rest = rest.trim_start();
        let position = filter.len() - rest.len();
        let Some(first) = rest.chars().next() else { return Ok(found) };
        let (token, length) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '"' => {
                let mut values = serde_json::Deserializer::from_str(rest).into_iter::<String>();
                match values.next() {
                    Some(Ok(text)) => (Token::Text(text), values.byte_offset()),
                    _ => return Err(format!("Invalid filter '{filter}': Unterminated string at position {position}.")),
                }
            }
            _ => {
                let length = rest.find(|c: char| c.is_whitespace() || "()\"".contains(c)).unwrap_or(rest.len());
                (Token::Word(rest.get(..length).unwrap_or_default().to_owned()), length)
            }
        };
        found.push((position, token));
        rest = rest.get(length..).unwrap_or_default();
    }
}

struct Parser<'a> {
    filter: &'a str,
    tokens: &'a [(usize, Token)],
    next: usize,
    types: Vec<String>,
}

impl Parser<'_> {
    fn alternatives(&mut self, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(self.unexpected());
        }
        loop {
            self.alternative(depth)?;
            match self.peek() {
                Some(Token::Word(word)) if word.eq_ignore_ascii_case("or") => self.next += 1,
                _ => return Ok(()),
            }
        }
    }

    fn alternative(&mut self, depth: usize) -> Result<(), String> {
        if self.peek() == Some(&Token::Open) {
            self.next += 1;
            self.alternatives(depth + 1)?;
            return if self.peek() == Some(&Token::Close) {
                self.next += 1;
                Ok(())
            } else {
                Err(self.unexpected())
            };
        }
        let Some(Token::Word(attribute)) = self.peek() else { return Err(self.unexpected()) };
        if attribute != "eventType" {
            return Err(format!("field is not valid: {attribute}"));
        }
        self.next += 1;
        match self.peek() {
            Some(Token::Word(operator)) if operator.eq_ignore_ascii_case("eq") => self.next += 1,
            Some(Token::Word(operator)) => {
                return Err(format!(
                    "Invalid filter '{}': Unrecognized attribute operator '{operator}' at position {}. \
                     Expected: eq,co,sw,pr,gt,ge,lt,le",
                    self.filter,
                    self.position()
                ));
            }
            _ => return Err(self.unexpected()),
        }
        let Some(Token::Text(event_type)) = self.peek() else { return Err(self.unexpected()) };
        self.types.push(event_type.clone());
        self.next += 1;
        Ok(())
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    fn position(&self) -> usize {
        self.tokens.get(self.next).map_or(self.filter.len(), |(position, _)| *position)
    }

    fn unexpected(&self) -> String {
        format!("Invalid filter '{}': Unexpected input at position {}.", self.filter, self.position())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(filter: &str, expected: Option<&[&str]>) {
        let parsed = EventTypes::parse(filter).ok().and_then(|types| types.wanted);
        assert_eq!(
            parsed.as_deref().map(|types| types.iter().map(String::as_str).collect::<Vec<_>>()).as_deref(),
            expected,
            "{filter}"
        );
    }

    #[test]
    fn alternatives_of_event_types_are_understood_with_and_without_parentheses() {
        check(r#"eventType eq "a""#, Some(&["a"]));
        check(r#"eventType eq "a" or eventType EQ "b.c" OR eventType eq "d""#, Some(&["a", "b.c", "d"]));
        check(r#"(eventType eq "a") or ((eventType eq "b"))"#, Some(&["a", "b"]));
    }

    #[test]
    fn everything_else_is_refused_rather_than_taken_for_all_events() {
        for filter in [
            r#"eventType eq "a" and eventType eq "b""#,
            r#"eventType eqq "a""#,
            r#"target.id eq "00u1""#,
            r#"eventType eq a"#,
            r#"eventType eq "a"#,
            r#"(eventType eq "a""#,
            r#"eventType eq "a")"#,
            "eventType",
            "or",
        ] {
            assert!(EventTypes::parse(filter).is_err(), "{filter}");
        }
        assert!(EventTypes::parse(&"(".repeat(10_000)).is_err());
    }

    #[test]
    fn no_filter_wants_everything() {
        assert!(EventTypes::parse(" ").unwrap().contains("anything"));
    }
}
