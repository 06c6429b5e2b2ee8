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
        if text.is_empty() && escape == Escape::PathSegment {
            return Err(minijinja::Error::new(ErrorKind::InvalidOperation, "a value of a path is empty"));
        }
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

/// The same text with everything in quotes blanked out, and the quote that ends it, byte for byte.
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
        if inside {
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
mod tests;
