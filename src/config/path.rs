//! The path of a key inside the configuration, such as `playbook[2].step[0].when`.

use std::fmt;

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Segment {
    /// A key of a table.
    Key(String),
    /// An element of an array.
    Element(usize),
}

/// How many playbooks and tests the files before have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Offset {
    pub(crate) playbooks: usize,
    pub(crate) tests: usize,
}

/// A path from the root of the configuration. Playbooks and tests are counted over all files.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyPath(Vec<Segment>);

impl KeyPath {
    /// The path of a top-level key.
    pub(crate) fn of(key: &str) -> Self {
        Self::default().key(key)
    }

    /// The path of a section by its name, such as `http.edr`.
    pub(crate) fn of_section(name: &str) -> Self {
        name.splitn(2, '.').fold(Self::default(), |path, key| path.key(key))
    }

    /// The path of a key below this one.
    pub(crate) fn key(&self, key: &str) -> Self {
        self.with(Segment::Key(key.to_owned()))
    }

    /// The path of an element below this one.
    pub(crate) fn element(&self, index: usize) -> Self {
        self.with(Segment::Element(index))
    }

    /// The path without its last segment; `None` for the root.
    pub(crate) fn parent(&self) -> Option<Self> {
        let (_, rest) = self.0.split_last()?;
        Some(Self(rest.to_vec()))
    }

    /// Whether this is `other` or below it.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    /// The segments, outermost first.
    pub(crate) fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// The same path with what is counted over all files counted from `offset`.
    pub(crate) fn counted_from(mut self, offset: Offset) -> Self {
        if let [Segment::Key(key), Segment::Element(index), ..] = self.0.as_mut_slice() {
            match key.as_str() {
                "playbook" => *index += offset.playbooks,
                "test" => *index += offset.tests,
                _ => {}
            }
        }
        self
    }

    fn with(&self, segment: Segment) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment);
        Self(segments)
    }
}

impl From<&[Segment]> for KeyPath {
    fn from(segments: &[Segment]) -> Self {
        Self(segments.to_vec())
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if position == 0 => f.write_str(key)?,
                Segment::Key(key) => write!(f, ".{key}")?,
                Segment::Element(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
