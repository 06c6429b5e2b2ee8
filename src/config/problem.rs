//! One thing that is wrong with the configuration, and how people and programs read it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::path::{KeyPath, Segment};

/// Something wrong with the configuration. Holds no secret, even where somebody wrote one into the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file it stands in.
    pub file: String,
    /// The line, counted from 1; `None` when it concerns the file as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column in characters, counted from 1, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// Where in the configuration, such as `[okta] org_url` or `playbook "x", step "y", when`. Empty: the file.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub place: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// The line itself, where seeing it helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<String>,
}

impl Problem {
    /// A problem of a file as a whole.
    pub(super) fn of_file(file: &Path, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            file: file.display().to_string(),
            line: None,
            column: None,
            place: String::new(),
            message: message.into(),
            remedy: remedy.into(),
            excerpt: None,
        }
    }

    /// One JSON object, on one line.
    pub fn to_json(&self) -> String {
        serde_json::json!(self).to_string()
    }
}

impl fmt::Display for Problem {
    /// `error: FILE:LINE:COLUMN: PLACE: MESSAGE`, the line itself, and the remedy, without a newline at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.file)?;
        for number in [self.line, self.column].into_iter().flatten() {
            write!(f, ":{number}")?;
        }
        if !self.place.is_empty() {
            write!(f, ": {}", self.place)?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(excerpt) = &self.excerpt {
            write!(f, "\n  | {excerpt}")?;
        }
        write!(f, "\n  remedy: {}", self.remedy)
    }
}

/// Where each key of the configuration stands.
#[derive(Debug, Clone)]
pub struct Sources {
    main: PathBuf,
    spots: BTreeMap<KeyPath, Spot>,
}

/// Where one key stands.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    pub(super) file: PathBuf,
    pub(super) line: usize,
    /// The `name` inside it, when it is an element of an array of tables.
    pub(super) name: Option<String>,
}

impl Sources {
    /// Sources without any key yet; `main` is the file for all that is not there.
    pub(super) fn new(main: &Path) -> Self {
        Self { main: main.to_owned(), spots: BTreeMap::new() }
    }

    pub(super) fn insert(&mut self, path: KeyPath, spot: Spot) {
        self.spots.insert(path, spot);
    }

    /// The main configuration file.
    pub fn main_file(&self) -> &Path {
        &self.main
    }

    /// A problem at a key, or at the nearest thing around it that is there.
    pub(super) fn problem(&self, path: &KeyPath, message: impl Into<String>, remedy: impl Into<String>) -> Problem {
        let spot = self.spot(path);
        Problem {
            file: spot.map_or(&self.main, |spot| &spot.file).display().to_string(),
            line: spot.map(|spot| spot.line),
            column: None,
            place: self.place(path),
            message: message.into(),
            remedy: remedy.into(),
            excerpt: None,
        }
    }

    /// A path in words: `[okta] org_url`, `playbook "x", step "y", when`. What has no name is counted from 1.
    pub(super) fn place(&self, path: &KeyPath) -> String {
        let mut words = Vec::new();
        let mut here = KeyPath::default();
        let mut rest = path.segments();
        while let [Segment::Key(noun), Segment::Element(index), behind @ ..] = rest
            && matches!(noun.as_str(), "playbook" | "step" | "test" | "expect")
        {
            here = here.key(noun).element(*index);
            words.push(match self.spots.get(&here).and_then(|spot| spot.name.as_deref()) {
                Some(name) => format!("{noun} \"{name}\""),
                None => format!("{noun} {}", index + 1),
            });
            rest = behind;
        }
        match rest {
            [] => {}
            // Its tables are sections by themselves.
            [Segment::Key(section), Segment::Key(name), keys @ ..] if words.is_empty() && section == "http" => {
                words.push(format!("[{section}.{name}] {}", KeyPath::from(keys)).trim_end().to_owned());
            }
            [Segment::Key(section)] if words.is_empty() => words.push(format!("[{section}]")),
            [Segment::Key(section), keys @ ..] if words.is_empty() => {
                words.push(format!("[{section}] {}", KeyPath::from(keys)));
            }
            keys => words.push(KeyPath::from(keys).to_string()),
        }
        words.join(", ")
    }

    /// Whether a key or table stands in a file, as it was written.
    pub(super) fn stands(&self, path: &KeyPath) -> bool {
        self.spots.contains_key(path)
    }

    /// The file and the line of a key, or of the nearest thing around it that is there.
    pub(super) fn stands_at(&self, path: &KeyPath) -> (PathBuf, usize) {
        self.spot(path).map_or_else(|| (self.main.clone(), 1), |spot| (spot.file.clone(), spot.line))
    }

    fn spot(&self, path: &KeyPath) -> Option<&Spot> {
        let mut path = path.clone();
        loop {
            if let Some(spot) = self.spots.get(&path) {
                return Some(spot);
            }
            path = path.parent()?;
        }
    }
}
