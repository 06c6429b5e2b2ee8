//! One TOML file, read into its type with every mistake of shape told at once.
//!
//! Serde stops at the first mistake. So the document is deserialized again and again: what a mistake points at is taken
//! out of the parsed tree (or, where a key is missing, a placeholder is put in), until the rest fits.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::path::{KeyPath, Offset, Segment};
use super::problem::{Problem, Sources, Spot};
use super::wording::{excerpt, listed, missing_remedy, secret_words, syntax_remedy, words};
use crate::model::similar::closest;

/// The most mistakes of shape told about one file; who makes more has another problem.
const MAX_MISTAKES: usize = 100;

/// Keys whose values are secrets, or name them. Their values never reach a message.
const SECRET_KEYS: &[&str] = &["token", "private_key", "password", "client_secret", "webhook_url"];

/// A document that has, after repairs, the shape of `T`.
pub(super) struct Document<T> {
    /// The value; it may be used only when `problems` is empty, and be checked further in any case.
    pub(super) value: T,
    /// The mistakes of shape.
    pub(super) problems: Vec<Problem>,
    /// What was done to it to give it its shape.
    pub(super) repairs: Repairs,
    /// Where each key stands.
    pub(super) spots: Vec<(KeyPath, Spot)>,
}

/// Reads a document.
///
/// # Errors
/// The problems, when it is not TOML, or cannot be repaired into the shape of `T`.
pub(super) fn read<T: DeserializeOwned>(file: &Path, text: &str) -> Result<Document<T>, Vec<Problem>> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let text = Text { file, text };
    if !errors.is_empty() {
        return Err(text.syntax(&errors));
    }
    let mut spots = Vec::new();
    text.index(tree.get_ref(), &KeyPath::default(), &mut spots);
    let mut sources = Sources::new(file);
    for (path, spot) in &spots {
        sources.insert(path.clone(), spot.clone());
    }
    let mut repair = Repair { text, sources, tree, problems: Vec::new(), repairs: Repairs::default() };
    for _ in 0..MAX_MISTAKES {
        match T::deserialize(Deserializer::from(repair.tree.clone())) {
            Ok(value) => {
                return Ok(Document { value, problems: repair.problems, repairs: repair.repairs, spots });
            }
            Err(error) => {
                if !repair.one(&error) {
                    break;
                }
            }
        }
    }
    Err(repair.problems)
}

/// What was taken out of a file or put into it, so that the rest could be read.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// Tables that were repaired: what seems wrong with them as a whole may only be a consequence.
    pub(super) tables: BTreeSet<KeyPath>,
    /// Keys that were taken out, or that a mistyped key was meant to be.
    pub(super) keys: BTreeSet<KeyPath>,
}

impl Repairs {
    /// Adds those of another file, whose playbooks and tests are counted from `offset`.
    pub(super) fn extend(&mut self, other: Self, offset: Offset) {
        self.tables.extend(other.tables.into_iter().map(|path| path.counted_from(offset)));
        self.keys.extend(other.keys.into_iter().map(|path| path.counted_from(offset)));
    }

    /// Whether what seems wrong at `path` may only be a consequence of a repair. What `stands` in the file as it was
    /// written is not.
    pub(super) fn may_have_caused(&self, path: &KeyPath, stands: bool) -> bool {
        self.tables.iter().any(|table| {
            path.segments().strip_prefix(table.segments()).is_some_and(|below| {
                let untouched = stands && !below.is_empty() && !self.keys.contains(path);
                let in_a_step = below
                    .windows(2)
                    .any(|pair| matches!(pair, [Segment::Key(key), Segment::Element(_)] if key == "step"));
                !untouched && !in_a_step
            })
        })
    }
}

/// A file's text, for lines and columns.
#[derive(Clone, Copy)]
struct Text<'i> {
    file: &'i Path,
    text: &'i str,
}

impl<'i> Text<'i> {
    fn syntax(self, errors: &[toml::de::Error]) -> Vec<Problem> {
        let mut lines = BTreeSet::new();
        let mut problems = Vec::new();
        for error in errors.iter().take(MAX_MISTAKES) {
            let span = error.span().unwrap_or(0..0);
            // One slip of the pen makes several errors on its line; the first one says it best.
            if lines.insert(self.line(span.start)) {
                let mut problem = Problem::of_file(
                    self.file,
                    format!("not TOML: {}", error.message()),
                    syntax_remedy(error.message(), self.line_text(span.start)),
                );
                self.point(&mut problem, span.start);
                problems.push(problem);
            }
        }
        problems
    }

    fn index(self, table: &DeTable<'_>, path: &KeyPath, spots: &mut Vec<(KeyPath, Spot)>) {
        for (key, value) in table {
            self.index_value(value, key.span().start, &path.key(key.get_ref()), spots);
        }
    }

    fn index_value(self, value: &Spanned<DeValue<'_>>, start: usize, path: &KeyPath, spots: &mut Vec<(KeyPath, Spot)>) {
        let table = value.get_ref().as_table();
        let name =
            table.and_then(|table| table.get("name")).and_then(|name| name.get_ref().as_str()).map(str::to_owned);
        spots.push((path.clone(), Spot { file: self.file.to_owned(), line: self.line(start), name }));
        match value.get_ref() {
            DeValue::Table(table) => self.index(table, path, spots),
            DeValue::Array(array) => {
                for (index, element) in array.iter().enumerate() {
                    self.index_value(element, element.span().start, &path.element(index), spots);
                }
            }
            _ => {}
        }
    }

    fn line(self, offset: usize) -> usize {
        self.before(offset).matches('\n').count() + 1
    }

    fn line_text(self, offset: usize) -> &'i str {
        let start = self.before(offset).rfind('\n').map_or(0, |newline| newline + 1);
        self.text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default()
    }

    fn before(self, offset: usize) -> &'i str {
        self.text.get(..offset).unwrap_or(self.text)
    }

    /// Adds line, column and, unless it may show a secret, the line itself.
    fn point(self, problem: &mut Problem, offset: usize) {
        let before = self.before(offset);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        problem.line = Some(self.line(offset));
        problem.column = before.get(start..).map(|rest| rest.chars().count() + 1);
        problem.excerpt = excerpt(self.line_text(offset));
    }
}

/// What a mistake is.
enum Mistake<'e> {
    UnknownKey(&'e str),
    MissingKey(&'e str),
    Other,
}

impl<'e> Mistake<'e> {
    /// Serde has no kinds of errors, but these two sentences are its own and have never changed.
    fn of(message: &'e str) -> Self {
        let quoted = |rest: &'e str| rest.split('`').next().unwrap_or_default();
        if let Some(rest) = message.strip_prefix("unknown field `") {
            Self::UnknownKey(quoted(rest))
        } else if let Some(rest) = message.strip_prefix("missing field `") {
            Self::MissingKey(quoted(rest))
        } else {
            Self::Other
        }
    }
}

struct Repair<'i> {
    text: Text<'i>,
    sources: Sources,
    tree: Spanned<DeTable<'i>>,
    problems: Vec<Problem>,
    repairs: Repairs,
}

impl Repair<'_> {
    /// Records one mistake and repairs the tree, or says that it cannot.
    fn one(&mut self, error: &toml::de::Error) -> bool {
        let span = error.span().unwrap_or(0..0);
        match Mistake::of(error.message()) {
            Mistake::MissingKey(key) => self.missing(key, &span),
            Mistake::UnknownKey(key) => self.unknown(key, error.message(), &span),
            Mistake::Other => self.misshapen(error.message(), &span),
        }
    }

    fn missing(&mut self, key: &str, span: &Range<usize>) -> bool {
        let Some(table) = find_table(&self.tree, span, |table| !table.contains_key(key)) else {
            self.unplaced(&format!("the key `{key}` is missing"), span);
            return false;
        };
        let path = table.key(key);
        // What was taken out a moment ago is missing now, and has been told. Of a whole section its keys are told.
        if !self.repairs.keys.contains(&path) && key != "okta" {
            let of_test = matches!(table.segments().first(), Some(Segment::Key(first)) if first == "test");
            let remedy = match key {
                "name" if of_test => "give it a name that says what is expected".to_owned(),
                _ => missing_remedy(key),
            };
            let problem = self.sources.problem(&table, format!("the key `{key}` is missing"), remedy);
            self.problems.push(problem);
        }
        self.repairs.tables.insert(table.clone());
        let placed = table_mut(&mut self.tree, &table)
            .map(|table| table.insert(Spanned::new(0..0, key.to_owned().into()), Spanned::new(0..0, placeholder(key))));
        placed.is_some()
    }

    fn unknown(&mut self, key: &str, message: &str, span: &Range<usize>) -> bool {
        let Some(path) = find(&self.tree, span, Part::Key) else {
            self.unplaced(message, span);
            return false;
        };
        let table = path.parent().unwrap_or_default();
        let known = listed(message);
        let remedy = match closest(key, known.iter().copied()) {
            Some(known) => {
                // Where the right key is missing, this one is why.
                self.repairs.keys.insert(table.key(known));
                format!("did you mean `{known}`?")
            }
            None if known.is_empty() => "take it out".to_owned(),
            None => format!("take it out, or use one of: {}", known.join(", ")),
        };
        let mut problem = self.sources.problem(&table, format!("unknown key `{key}`"), remedy);
        self.text.point(&mut problem, span.start);
        // A mistyped name of a key may hide one that holds a secret.
        problem.excerpt = None;
        self.problems.push(problem);
        self.take_out(path)
    }

    fn misshapen(&mut self, message: &str, span: &Range<usize>) -> bool {
        let at_value = find(&self.tree, span, Part::Value);
        let at_key = at_value.is_none();
        let Some(path) = at_value.or_else(|| find(&self.tree, span, Part::Key)) else {
            self.unplaced("a value has the wrong type", span);
            return false;
        };
        let secret = path
            .segments()
            .iter()
            .any(|segment| matches!(segment, Segment::Key(key) if SECRET_KEYS.contains(&key.as_str())));
        let (message, remedy) = if secret { secret_words(message, at_key) } else { words(message) };
        let mut problem = self.sources.problem(&path, message, remedy);
        self.text.point(&mut problem, span.start);
        if secret {
            problem.excerpt = None;
        }
        self.problems.push(problem);
        self.take_out(path)
    }

    /// Takes a key out of its table. Of an array nothing is taken out alone, so that its elements keep their numbers.
    fn take_out(&mut self, mut path: KeyPath) -> bool {
        // A secret goes as a whole: what is left of its table would only be refused again.
        while let Some(parent) = path.parent()
            && (matches!(path.segments().last(), Some(Segment::Element(_)))
                || matches!(parent.segments().last(), Some(Segment::Key(key)) if SECRET_KEYS.contains(&key.as_str())))
        {
            path = parent;
        }
        let (Some(table), Some(Segment::Key(key))) = (path.parent(), path.segments().last()) else {
            return false;
        };
        if table != KeyPath::default() {
            self.repairs.tables.insert(table.clone());
        }
        let key = key.clone();
        let taken = table_mut(&mut self.tree, &table).and_then(|table| table.remove(key.as_str()));
        self.repairs.keys.insert(path);
        taken.is_some()
    }

    fn unplaced(&mut self, message: &str, span: &Range<usize>) {
        let mut problem = Problem::of_file(self.text.file, message, "compare it with config.example.toml");
        self.text.point(&mut problem, span.start);
        self.problems.push(problem);
    }
}

/// A value of the right type for a key that has to be there.
fn placeholder<'i>(key: &str) -> DeValue<'i> {
    match key {
        "okta" => DeValue::Table(DeTable::new()),
        "on" => DeValue::Array(toml::de::DeArray::new()),
        "webhook_url" => {
            let mut table = DeTable::new();
            table.insert(Spanned::new(0..0, "env".into()), Spanned::new(0..0, DeValue::String("".into())));
            DeValue::Table(table)
        }
        _ => DeValue::String("".into()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Key,
    Value,
}

/// The path of the key or the value that stands at exactly this span.
fn find(tree: &Spanned<DeTable<'_>>, span: &Range<usize>, part: Part) -> Option<KeyPath> {
    walk(tree.get_ref(), &KeyPath::default(), &mut |path, key, value| {
        let at = if part == Part::Key { key.cloned() } else { Some(value.span()) };
        (at.as_ref() == Some(span)).then(|| path.clone())
    })
}

/// The path of the table that stands at exactly this span and fits.
fn find_table(
    tree: &Spanned<DeTable<'_>>,
    span: &Range<usize>,
    fits: impl Fn(&DeTable<'_>) -> bool,
) -> Option<KeyPath> {
    let below = walk(tree.get_ref(), &KeyPath::default(), &mut |path, _, value| {
        let table = value.get_ref().as_table()?;
        (value.span() == *span && fits(table)).then(|| path.clone())
    });
    below.or_else(|| (tree.span() == *span && fits(tree.get_ref())).then(KeyPath::default))
}

/// Sees a path, the span of its key (elements have none) and its value.
type Visit<'v> = dyn FnMut(&KeyPath, Option<&Range<usize>>, &Spanned<DeValue<'_>>) -> Option<KeyPath> + 'v;

/// Visits everything below a table, outer things first, until `visit` returns something.
fn walk(table: &DeTable<'_>, path: &KeyPath, visit: &mut Visit<'_>) -> Option<KeyPath> {
    table.iter().find_map(|(key, value)| walk_value(value, Some(&key.span()), &path.key(key.get_ref()), visit))
}

fn walk_value(
    value: &Spanned<DeValue<'_>>,
    key: Option<&Range<usize>>,
    path: &KeyPath,
    visit: &mut Visit<'_>,
) -> Option<KeyPath> {
    visit(path, key, value).or_else(|| match value.get_ref() {
        DeValue::Table(table) => walk(table, path, visit),
        DeValue::Array(array) => {
            array.iter().enumerate().find_map(|(index, element)| walk_value(element, None, &path.element(index), visit))
        }
        _ => None,
    })
}

fn table_mut<'t, 'i>(tree: &'t mut Spanned<DeTable<'i>>, path: &KeyPath) -> Option<&'t mut DeTable<'i>> {
    let mut segments = path.segments().iter();
    let Some(first) = segments.next() else {
        return Some(tree.get_mut());
    };
    let Segment::Key(key) = first else {
        return None;
    };
    let mut value = tree.get_mut().get_mut(key.as_str())?.get_mut();
    for segment in segments {
        value = match (segment, value) {
            (Segment::Key(key), DeValue::Table(table)) => table.get_mut(key.as_str())?.get_mut(),
            (Segment::Element(index), DeValue::Array(array)) => array.get_mut(*index)?.get_mut(),
            _ => return None,
        };
    }
    match value {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}
