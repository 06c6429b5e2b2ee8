//! Templates: minijinja behind a type of our own, so that nothing else depends on it.
//!
//! The literal text of a template is the operator's and stays as it is. Every interpolated value is escaped for its
//! destination by the formatter, after all filters, so that no filter can get around it. There are no loaders, includes,
//! macros, assignments or functions; output and work are bounded. A name or field that isn't there is an error, `null`
//! renders as nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, filters, tests as builtin_tests};
use thiserror::Error;

use super::CompileError;
use super::facts::{Fact, FactSet, Facts, STEPS, cut};
use super::shape::Place;
use crate::model::escape::Escape;

/// The longest template, in bytes.
pub const MAX_TEMPLATE: usize = 16 * 1024;

/// The longest text a template may give, in bytes.
pub const MAX_OUTPUT: usize = 64 * 1024;

/// The most instructions one rendering may take.
const FUEL: u64 = 100_000;

/// How deep a template may recurse.
const RECURSION: usize = 64;

/// The name under which the one template of an environment is kept.
const NAME: &str = "template";

const FILTERS: [&str; 13] = [
    "default",
    "d",
    "join",
    "upper",
    "lower",
    "capitalize",
    "trim",
    "replace",
    "length",
    "first",
    "last",
    "sort",
    "json",
];

const TESTS: [&str; 6] = ["defined", "undefined", "none", "string", "number", "sequence"];

const STATEMENTS: [&str; 6] = ["if", "elif", "else", "endif", "for", "endfor"];

/// A compiled template.
pub struct Template {
    text: String,
    environment: Environment<'static>,
    names: BTreeSet<&'static str>,
    steps: BTreeSet<String>,
}

/// A template that gave no text for these facts.
#[derive(Debug, Error)]
pub enum TemplateError {
    /// It needs a fact that could not be had.
    #[error("the fact `{fact}` is not known: {why}")]
    MissingFact {
        /// The fact.
        fact: Fact,
        /// Why it is not known.
        why: String,
    },
    /// It names a field that this event doesn't have.
    #[error("it names a field that is not there; give it a default: {{{{ … | default(\"-\") }}}} ({detail})")]
    Undefined {
        /// Where, cut.
        detail: String,
    },
    /// The text is longer than [`MAX_OUTPUT`], or takes too much work.
    #[error("the text would be longer than {MAX_OUTPUT} bytes, or takes too long to build; shorten what it repeats")]
    TooLarge,
    /// Anything else.
    #[error("it cannot be rendered: {detail}")]
    Failed {
        /// What the engine says, cut.
        detail: String,
    },
}

impl Template {
    /// Compiles a template whose interpolated values go to `escape`; whatever can be wrong without an event is found here.
    pub fn compile(text: &str, escape: Escape) -> Result<Self, CompileError> {
        if text.len() > MAX_TEMPLATE {
            let message = format!("the template has {} bytes, more than {MAX_TEMPLATE}", text.len());
            return Err(CompileError::new(message, "shorten it"));
        }
        check_words(text)?;
        let mut environment = environment(escape);
        environment.add_template_owned(NAME, text.to_owned()).map_err(|error| {
            let message = format!("`{}` is not a template: {}", cut(text, 100), cut(&error.to_string(), 300));
            CompileError::new(message, "values stand in {{ … }}, conditions in {% if … %}…{% endif %}")
        })?;
        let (names, steps) = names_in(&environment)?;
        Ok(Self { text: text.to_owned(), environment, names, steps })
    }

    /// The template as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The facts it names.
    pub fn facts_named(&self) -> FactSet {
        self.names.iter().filter_map(|name| Fact::parse(name)).collect()
    }

    /// Which steps it reads, as identifiers (see [`step_identifier`](super::facts::step_identifier)).
    pub fn steps_named(&self) -> &BTreeSet<String> {
        &self.steps
    }

    /// Renders the template. Only what it names is handed to the engine.
    pub fn render(&self, facts: &Facts) -> Result<String, TemplateError> {
        let known: BTreeMap<_, _> =
            self.names.iter().filter_map(|name| facts.value(name).map(|value| (*name, value))).collect();
        let mut out = Bounded(Vec::new());
        let rendered = self
            .environment
            .get_template(NAME)
            .and_then(|template| template.render_captured_to(minijinja::value::Serde(&known), &mut out));
        match rendered {
            Ok(_) => Ok(String::from_utf8_lossy(&out.0).into_owned()),
            Err(error) => Err(self.explain(&error, facts)),
        }
    }

    fn explain(&self, error: &minijinja::Error, facts: &Facts) -> TemplateError {
        let detail: String =
            error.to_string().chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect();
        match error.kind() {
            ErrorKind::UndefinedError => {
                let missing = |fact| facts.reason_missing(fact).map(|why| (fact, why.to_owned()));
                match self.facts_named().iter().find_map(missing) {
                    Some((fact, why)) => TemplateError::MissingFact { fact, why },
                    None => TemplateError::Undefined { detail },
                }
            }
            ErrorKind::OutOfFuel | ErrorKind::WriteFailure => TemplateError::TooLarge,
            _ => TemplateError::Failed { detail },
        }
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Template").field(&self.text).finish()
    }
}

/// An engine with the filters and tests of the lists above and nothing else.
fn environment(escape: Escape) -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION);
    environment.set_debug(false);
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        environment.set_syntax(syntax);
    }
    environment.add_filter("default", filters::default);
    environment.add_filter("d", filters::default);
    environment.add_filter("join", filters::join);
    environment.add_filter("upper", filters::upper);
    environment.add_filter("lower", filters::lower);
    environment.add_filter("capitalize", filters::capitalize);
    environment.add_filter("trim", filters::trim);
    environment.add_filter("replace", filters::replace);
    environment.add_filter("length", filters::length);
    environment.add_filter("first", filters::first);
    environment.add_filter("last", filters::last);
    environment.add_filter("sort", filters::sort);
    environment.add_filter("json", as_json);
    environment.add_test("defined", builtin_tests::is_defined);
    environment.add_test("undefined", builtin_tests::is_undefined);
    environment.add_test("none", builtin_tests::is_none);
    environment.add_test("string", builtin_tests::is_string);
    environment.add_test("number", builtin_tests::is_number);
    environment.add_test("sequence", builtin_tests::is_sequence);
    environment.set_formatter(move |out, _, value| {
        let text = match value.as_str() {
            Some(text) => escape.apply(text),
            None if value.is_none() || value.is_undefined() => String::new(),
            None => escape.apply(&as_json(value)?),
        };
        out.write_str(&text).map_err(minijinja::Error::from)
    });
    environment
}

/// Compact JSON, as text.
fn as_json(value: &minijinja::Value) -> Result<String, minijinja::Error> {
    if value.kind() == ValueKind::Undefined {
        return Err(ErrorKind::UndefinedError.into());
    }
    serde_json::to_string(value)
        .map_err(|error| minijinja::Error::new(ErrorKind::BadSerialization, "not JSON").with_source(error))
}

/// The known names and the steps that a compiled template reads; a name that nothing fills and a field
/// that never exists are refused.
fn names_in(environment: &Environment<'_>) -> Result<(BTreeSet<&'static str>, BTreeSet<String>), CompileError> {
    let template = environment
        .get_template(NAME)
        .map_err(|error| CompileError::new(cut(&error.to_string(), 300), "simplify the template"))?;
    let mut names = BTreeSet::new();
    let mut steps = BTreeSet::new();
    let mut paths: Vec<String> = template.undeclared_variables(true).into_iter().collect();
    paths.sort();
    for path in paths {
        let mut parts = path.split('.');
        let root = parts.next().unwrap_or_default();
        let Some(known) = Facts::names().find(|known| *known == root) else {
            return Err(CompileError::unknown_name(root));
        };
        let place = Place::of(known).ok_or_else(|| CompileError::unknown_name(root))?;
        path.split('.').skip(1).try_fold(place, |place, field| place.field(field))?;
        names.insert(known);
        if known == STEPS {
            let Some(step) = parts.next() else {
                let remedy = "write steps.NAME with `_` for every `-` of the name, such as steps.tell_security.state";
                return Err(CompileError::new("`steps` is used as a whole", remedy));
            };
            steps.insert(step.to_owned());
        }
    }
    Ok((names, steps))
}

/// Refuses every statement, filter and test that is not on the lists; the engine would only tell when it renders. This is
/// for early words, not for safety: what it overlooks the engine refuses, and the formatter escapes whatever comes out.
fn check_words(text: &str) -> Result<(), CompileError> {
    for part in text.split("{%").skip(1) {
        let word = first_word(part.trim_start_matches(['-', '+']));
        if !STATEMENTS.contains(&word) {
            let message = format!("the statement `{word}` cannot be used in a template");
            return Err(CompileError::new(message, format!("statements are {}", STATEMENTS.join(", "))));
        }
    }
    for inside in expressions(text) {
        let bare = without_strings(inside);
        for (at, _) in bare.match_indices('|') {
            let word = first_word(bare.get(at + 1..).unwrap_or_default());
            if !word.is_empty() && !FILTERS.contains(&word) {
                let message = format!("there is no filter `{word}`");
                return Err(CompileError::new(message, format!("filters are {}", FILTERS.join(", "))));
            }
        }
        let mut words = bare.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
        while let Some(word) = words.next() {
            if word != "is" {
                continue;
            }
            let test = match words.next() {
                Some("not") => words.next(),
                other => other,
            };
            if let Some(test) = test.filter(|test| !TESTS.contains(test)) {
                let message = format!("there is no test `{test}`");
                return Err(CompileError::new(message, format!("tests are {}", TESTS.join(", "))));
            }
        }
    }
    Ok(())
}

/// What stands between the delimiters of expressions and statements.
fn expressions(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let start = rest.find("{{").into_iter().chain(rest.find("{%")).min()?;
        let close = if rest.get(start..)?.starts_with("{{") { "}}" } else { "%}" };
        let inside = rest.get(start + 2..)?;
        let end = without_strings(inside).find(close).unwrap_or(inside.len());
        rest = inside.get(end..)?;
        inside.get(..end)
    })
}

/// The same text with everything in quotes blanked out, byte for byte.
fn without_strings(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut quote = None;
    let mut escaped = false;
    for c in text.chars() {
        let inside = quote.is_some();
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            _ => {}
        }
        if inside || quote.is_some() {
            out.extend(std::iter::repeat_n(' ', c.len_utf8()));
        } else {
            out.push(c);
        }
    }
    out
}

fn first_word(text: &str) -> &str {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

/// Takes no more than [`MAX_OUTPUT`] bytes.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            return Err(io::Error::other("the text is too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::model::event::{Event, SOURCE_OKTA};
    use crate::playbook::facts::{FactValue, LinkBase, StepView};

    fn facts(message: &str) -> Facts {
        let body = json!({
            "uuid": "u-1", "eventType": "user.risk.detect", "published": "2026-08-24T10:15:02.102Z",
            "displayMessage": message, "outcome": {"reason": null}, "count": 3, "list": ["a", "<b>"],
            "big": vec!["x".repeat(1_000); 200],
        });
        let event = Event::parse(SOURCE_OKTA, &body.to_string()).unwrap();
        Facts::from_event(event, &LinkBase::new("https://acme.okta.com", None))
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        check_escaped(Escape::Html, text, "<script>", expected);
    }

    #[track_caller]
    fn check_escaped(escape: Escape, text: &str, message: &str, expected: &str) {
        assert_eq!(Template::compile(text, escape).unwrap().render(&facts(message)).unwrap(), expected, "{text}");
    }

    #[track_caller]
    fn check_refused(text: &str, part: &str) {
        let error = Template::compile(text, Escape::Plain).unwrap_err();
        assert!(error.to_string().contains(part), "{text}: {error}");
    }

    #[test]
    fn values_are_escaped_and_literals_are_not() {
        check("<b>{{ event.displayMessage }}</b>", "<b>&lt;script&gt;</b>");
        check("{{ event.list }}", "[&quot;a&quot;,&quot;&lt;b&gt;&quot;]");
        check("{{ event.list | join('<') }}", "a&lt;&lt;b&gt;");
        check("{{ '<' ~ event.displayMessage }}", "&lt;&lt;script&gt;");
        check("{{ event.count }} {{ event.count > 2 }}", "3 true");
        check("{% for x in event.list %}{{ loop.index }}{{ x }}{% endfor %}", "1a2&lt;b&gt;");
        check_escaped(Escape::SlackMrkdwn, "<{{ event.displayMessage }}>", "<!channel>", "<&lt;!channel&gt;>");
        check_escaped(Escape::Line, "{{ event.displayMessage }}", "a\r\nBcc: x", "a  Bcc: x");
    }

    #[test]
    fn null_is_nothing_and_a_missing_field_is_an_error() {
        check("[{{ event.outcome.reason }}]", "[]");
        check("[{{ event.weather | default('-') }}]", "[-]");
        check("{% if event.weather is defined %}a{% else %}b{% endif %}\n", "b\n");
        for text in ["{{ event.weather }}", "{{ event.weather.sun }}", "{{ event.weather | upper }}"] {
            let error = Template::compile(text, Escape::Plain).unwrap().render(&facts("")).unwrap_err();
            assert!(matches!(error, TemplateError::Undefined { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn nothing_gets_around_the_formatter() {
        for text in [
            "{{ event.displayMessage | safe }}",
            "{{ event.displayMessage|safe }}",
            "{% autoescape false %}{{ event.displayMessage }}{% endautoescape %}",
            "{% filter safe %}x{% endfilter %}",
            "{% set x = event %}{{ x }}",
            "{% macro m() %}{% endmacro %}",
            "{% include 'x' %}",
            "{% raw %}{{ x }}{% endraw %}",
            "{{ range(3) }}",
            "{{ debug() }}",
            "{{ weather }}",
            "{{ event is safe }}",
        ] {
            assert!(Template::compile(text, Escape::Html).is_err(), "{text}");
        }
    }

    #[test]
    fn a_field_that_never_exists_is_refused() {
        check_refused("{{ target.logn }}", "no field `target.logn`; did you mean `login`?");
        check_refused("{{ steps.quarantine.stat }}", "no field `steps.quarantine.stat`; did you mean `state`?");
        check_refused("{{ user.nme }}", "did you mean `name`?");
        check_refused("{{ manager.emial | default('-') }}", "did you mean `email`?");
        check_refused("{% if risk.lvl == 'HIGH' %}x{% endif %}", "no field `risk.lvl`");
        check_refused("{% for r in risk.reason %}{{ r }}{% endfor %}", "did you mean `reasons`?");
        check_refused("{% for risk in risk.reasons %}{% endfor %}{{ risk.lvl }}", "no field `risk.lvl`");
    }

    #[test]
    fn fields_that_exist_or_may_exist_and_names_of_loops_are_taken() {
        for text in [
            "{% for risk in event.risks %}{{ risk.lvl }}{{ risk.level.x }}{{ loop.index }}{% endfor %}",
            "{{ user.profile.costCenter | default('-') }}{{ manager.profile['nick name'] }}",
            "{{ sign_in.behaviors['New Device'] }}{{ sign_in.behaviors.Velocity | default('-') }}",
            "{{ risk.reasons.0 }}{{ risk.reasons[0] }}{{ groups | first }}{{ user_risk }}",
            "{{ risk.detection | default('-') }}{% if app.name is defined %}{{ app.name }}{% endif %}",
            "{{ 'target.logn' }}target.logn {{ risk | json }}{# risk.lvl #}",
        ] {
            Template::compile(text, Escape::Plain).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
    }

    #[test]
    fn a_pipe_inside_a_text_is_no_filter() {
        check("{{ event.weather | default('a|safe }} is odd') }}|safe", "a|safe }} is odd|safe");
    }

    #[test]
    fn text_from_events_is_never_a_template() {
        let message = "{{ links.syslog }}{% if true %}x{% endif %}{# y #}";
        check_escaped(Escape::Plain, "{{ event.displayMessage }}", message, message);
    }

    #[test]
    fn steps_must_be_named() {
        let template = Template::compile("{{ steps.tell_security.url }}{{ steps.a.state }}", Escape::Plain).unwrap();
        assert_eq!(template.steps_named().iter().collect::<Vec<_>>(), ["a", "tell_security"]);
        let mut facts = facts("");
        facts.set_step("tell-security", StepView { url: Some("https://x".to_owned()), ..StepView::default() });
        facts.set_step("a", StepView { state: "failed".to_owned(), ..StepView::default() });
        assert_eq!(template.render(&facts).unwrap(), "https://xfailed");
        check_refused("{{ steps['a'] }}", "as a whole");
        check_refused("{% for s in steps %}{% endfor %}", "as a whole");
        check_refused("{{ steps | json }}", "as a whole");
    }

    #[test]
    fn a_missing_fact_is_named_with_its_reason() {
        let mut facts = facts("");
        facts.set(Fact::Manager, FactValue::Missing("Okta answered 403".to_owned()));
        let template = Template::compile("{{ manager.login }}", Escape::Plain).unwrap();
        assert_eq!(template.facts_named().to_string(), "manager");
        assert_eq!(
            template.render(&facts).unwrap_err().to_string(),
            "the fact `manager` is not known: Okta answered 403"
        );
        let guarded = "{% if manager is defined %}{{ manager.login }}{% else %}nobody{% endif %}";
        assert_eq!(Template::compile(guarded, Escape::Plain).unwrap().render(&facts).unwrap(), "nobody");
    }

    #[test]
    fn output_and_work_are_bounded() {
        for text in [
            "{{ event.big }}",
            "{% for a in event.big %}{{ a }}{% endfor %}",
            "{% for a in event.big %}{% for b in event.big %}{% for c in event.big %}{% endfor %}{% endfor %}{% endfor %}",
        ] {
            let error = Template::compile(text, Escape::Plain).unwrap().render(&facts("")).unwrap_err();
            assert!(matches!(error, TemplateError::TooLarge), "{text}: {error}");
        }
    }

    #[test]
    fn wrong_templates_are_refused_when_compiled() {
        for text in ["{{", "{{ }}", "{% if %}", "{{ event. }}", "{{ event.x | upperr }}", &"x".repeat(MAX_TEMPLATE + 1)]
        {
            assert!(Template::compile(text, Escape::Plain).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_an_event_says_comes_out_as_its_escaped_self(message in "\\PC{0,200}") {
            let template = Template::compile("{{ event.displayMessage }}", Escape::Html).unwrap();
            let expected = Escape::Html.apply(&message);
            prop_assert_eq!(template.render(&facts(&message)).unwrap(), expected);
        }

        #[test]
        fn no_template_text_panics(text in "[{}%#|a-z '\"().\\[\\]-]{0,60}") {
            if let Ok(template) = Template::compile(&text, Escape::Plain) {
                let _ = template.render(&facts(""));
            }
        }
    }
}
