//! An issue on its way to Jira and back: the parameters of a step, what is sent, and what is asked of an issue.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::config::JiraFlavor;
use crate::connectors::{cut, required};
use crate::model::escape::{Escape, is_hidden};
use crate::model::ids::IdempotencyKey;

/// The longest `summary` (the field's own limit).
pub(super) const MAX_SUMMARY: usize = 255;
/// The longest label (the field's own limit).
const MAX_LABEL: usize = 255;
/// The longest text, which is Jira's limit of 32,767 characters with room for what stands around it. A document of Cloud
/// counts with its marks.
pub(super) const MAX_TEXT: usize = 32_000;
/// The most labels of a step, and the most further fields.
const MAX_LABELS: usize = 20;
const MAX_FIELDS: usize = 50;
/// What our own label begins with; the key follows.
const OWN_LABEL: &str = "okta-responder-";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct IssueParams {
    /// Its key, such as `SEC`.
    pub(super) project: String,
    /// The name of the type, such as `Task`.
    issue_type: String,
    summary: String,
    /// Plain text.
    description: Option<String>,
    #[serde(default)]
    labels: Vec<String>,
    /// The name of the priority, such as `High`.
    priority: Option<String>,
    /// An account id; for a server the name of a user.
    assignee: Option<String>,
    /// Further fields by their ids, in the form in which Jira takes them, such as `customfield_10010 = { value = "Okta" }`.
    #[serde(default)]
    fields: BTreeMap<String, Value>,
    /// Events with the same correlation share one issue as long as it is open. It becomes a label.
    pub(super) correlation: Option<String>,
}

/// The fields that have parameters of their own.
const NAMED_FIELDS: [&str; 7] = ["project", "issuetype", "summary", "description", "labels", "priority", "assignee"];

impl IssueParams {
    /// Reads the shape; values that only matter when they are final are looked at by [`NewIssue::new`].
    pub(super) fn parse(params: &Value) -> Result<Self, String> {
        let params = Self::deserialize(params).map_err(|error| error.to_string())?;
        required("project", &params.project)?;
        required("issue_type", &params.issue_type)?;
        required("summary", &params.summary)?;
        params.correlation.as_deref().map_or(Ok(()), |correlation| required("correlation", correlation))?;
        for (given, most, parameter) in
            [(params.labels.len(), MAX_LABELS, "labels"), (params.fields.len(), MAX_FIELDS, "fields")]
        {
            if given > most {
                return Err(format!("`{parameter}` has more than {most} entries"));
            }
        }
        for field in params.fields.keys() {
            if field.is_empty() || !field.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c)) {
                return Err(format!("`fields.{field}` is not the id of a field"));
            }
            if NAMED_FIELDS.contains(&field.as_str()) {
                return Err(format!("`fields.{field}` has a parameter of its own; use that"));
            }
        }
        Ok(params)
    }
}

/// An issue that is to be created.
#[derive(Debug)]
pub(super) struct NewIssue {
    params: IssueParams,
    summary: String,
    labels: Vec<String>,
    /// It alone says whether *this* action's request arrived.
    pub(super) own_label: String,
    /// What other events share, if the step says so.
    pub(super) correlation: Option<Correlation>,
}

impl NewIssue {
    /// Takes final parameters.
    pub(super) fn new(params: &Value, key: &IdempotencyKey) -> Result<Self, String> {
        let params = IssueParams::parse(params)?;
        let project = params.project.trim();
        if project.len() > 255 || !project.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err("`project` is not the key of a project, such as \"SEC\"".to_owned());
        }
        let shared = params.correlation.as_deref();
        let correlation = shared.map(|text| Correlation::new(project, text)).transpose()?;
        let summary = cut(Escape::Line.apply(&params.summary).trim(), MAX_SUMMARY);
        required("summary", &summary)?;
        let own_label = format!("{OWN_LABEL}{}", key.as_str());
        let mut labels: Vec<_> = params.labels.iter().map(|text| label(text)).filter(|text| !text.is_empty()).collect();
        labels.push(own_label.clone());
        labels.extend(correlation.as_ref().map(|correlation| correlation.label.clone()));
        labels.sort_unstable();
        labels.dedup();
        Ok(Self { params, summary, labels, own_label, correlation })
    }

    /// The search for the issue that this action's own request made, wherever it was moved since.
    pub(super) fn jql_of_own(&self) -> String {
        format!("labels = {} ORDER BY created DESC", literal(&self.own_label))
    }

    /// What goes over the wire.
    pub(super) fn body(&self, flavor: JiraFlavor) -> Value {
        let given =
            |text: &Option<String>| text.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        let mut fields = Map::new();
        for (field, value) in &self.params.fields {
            if let Some(value) = bounded(value) {
                fields.insert(field.clone(), value);
            }
        }
        fields.insert("project".to_owned(), json!({"key": self.params.project.trim()}));
        fields.insert("issuetype".to_owned(), json!({"name": self.params.issue_type.trim()}));
        fields.insert("summary".to_owned(), json!(self.summary));
        fields.insert("labels".to_owned(), json!(self.labels));
        if let Some(priority) = given(&self.params.priority) {
            fields.insert("priority".to_owned(), json!({"name": priority}));
        }
        if let Some(assignee) = given(&self.params.assignee) {
            let who = if flavor == JiraFlavor::Cloud { "accountId" } else { "name" };
            fields.insert("assignee".to_owned(), json!({who: assignee}));
        }
        if let Some(text) = given(&self.params.description) {
            let text = match flavor {
                JiraFlavor::Cloud => document(&text),
                JiraFlavor::Server => json!(verbatim(&text)),
            };
            fields.insert("description".to_owned(), text);
        }
        json!({"fields": fields})
    }
}

/// What events share an issue by, in one project.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Correlation {
    project: String,
    pub(super) label: String,
}

impl Correlation {
    /// Checks an operator's correlation, part of which comes from events. It stands in a search and has to be a label.
    fn new(project: &str, text: &str) -> Result<Self, String> {
        let text = text.trim();
        required("correlation", text)?;
        if text.chars().count() > MAX_LABEL {
            return Err(format!("`correlation` is longer than {MAX_LABEL} characters"));
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control() || is_hidden(c)) {
            return Err("`correlation` holds a space or a control character, and no label of Jira's can".to_owned());
        }
        Ok(Self { project: project.to_owned(), label: text.to_owned() })
    }

    /// The search for its open issue.
    pub(super) fn jql_of_open(&self) -> String {
        let (project, label) = (literal(&self.project), literal(&self.label));
        format!("project = {project} AND labels = {label} AND statusCategory != Done ORDER BY created DESC")
    }
}

/// A text as one value of a search, which it cannot leave (Atlassian, "Search syntax for text fields": in quotes, the quote
/// and the backslash are escaped).
pub(super) fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// A label holds no space; event text that does must not keep an issue from being created.
pub(super) fn label(text: &str) -> String {
    let joined: Vec<_> = text.split(|c: char| c.is_whitespace() || c.is_control() || is_hidden(c)).collect();
    let joined: Vec<_> = joined.into_iter().filter(|word| !word.is_empty()).collect();
    joined.join("-").chars().take(MAX_LABEL).collect()
}

/// A further field with its texts cut; `None` for an empty text, which is what a fact that is not there renders as.
fn bounded(value: &Value) -> Option<Value> {
    fn cut_all(value: &Value) -> Value {
        match value {
            Value::String(text) => json!(cut(text, MAX_TEXT)),
            Value::Array(list) => list.iter().map(cut_all).collect(),
            Value::Object(object) => object.iter().map(|(key, value)| (key.clone(), cut_all(value))).collect(),
            other => other.clone(),
        }
    }
    if value.is_null() || value.as_str().is_some_and(|text| text.trim().is_empty()) {
        None
    } else {
        Some(cut_all(value))
    }
}

/// A text in the Atlassian Document Format, in which no text is markup: a paragraph for each block of lines. It is cut until
/// it fits with all its marks.
pub(super) fn document(text: &str) -> Value {
    let mut most = MAX_TEXT;
    loop {
        let document = document_of(&cut(text, most));
        if most < 100 || document.to_string().chars().count() <= MAX_TEXT {
            return document;
        }
        most = most / 4 * 3;
    }
}

fn document_of(text: &str) -> Value {
    let mut paragraphs: Vec<Vec<Value>> = vec![Vec::new()];
    for line in text.lines().map(|line| line.trim_end().replace(char::is_control, " ")) {
        match paragraphs.last_mut() {
            Some(paragraph) if !line.trim().is_empty() => {
                if !paragraph.is_empty() {
                    paragraph.push(json!({"type": "hardBreak"}));
                }
                paragraph.push(json!({"type": "text", "text": line}));
            }
            _ => paragraphs.push(Vec::new()),
        }
    }
    let paragraphs = paragraphs.into_iter().filter(|paragraph| !paragraph.is_empty());
    let content: Vec<_> = paragraphs.map(|content| json!({"type": "paragraph", "content": content})).collect();
    json!({"type": "doc", "version": 1, "content": content})
}

/// A text for a field that reads wiki markup, in which event text could write links, pictures and mentions: as a block
/// that is shown as it is, and that nothing within can end.
pub(super) fn verbatim(text: &str) -> String {
    const WORD: &str = "{noformat";
    let mut out = String::with_capacity(text.len() + 32);
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let ends = tag.get(..WORD.len()).is_some_and(|start| start.eq_ignore_ascii_case(WORD));
        out.push_str(if ends { "{ " } else { "{" });
        rest = tag.strip_prefix('{').unwrap_or_default();
    }
    out.push_str(rest);
    format!("{WORD}}}\n{}\n{WORD}}}", cut(&out, MAX_TEXT))
}

/// What a search answers.
#[derive(Debug, Deserialize)]
pub(super) struct Issues {
    pub(super) issues: Vec<Issue>,
}

/// What is asked of an issue. One that was just created has no fields yet.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Issue {
    #[serde(deserialize_with = "id")]
    pub(super) id: String,
    #[serde(deserialize_with = "key")]
    pub(super) key: String,
    fields: Fields,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fields {
    labels: Vec<String>,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    status_category: StatusCategory,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StatusCategory {
    /// `new`, `indeterminate` or `done`, whatever the statuses of a project are called.
    key: String,
}

impl Issue {
    /// The fields that are asked for.
    pub(super) const FIELDS: [&str; 2] = ["labels", "status"];

    /// Whether it carries this very label.
    pub(super) fn has(&self, label: &str) -> bool {
        !self.id.is_empty() && !self.key.is_empty() && self.fields.labels.iter().any(|known| known == label)
    }

    /// Whether people still work on it.
    pub(super) fn is_open(&self) -> bool {
        self.fields.status.status_category.key != "done"
    }
}

/// An id goes into a URL, so anything that is none counts as missing.
fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let fits = text.len() <= 20 && text.chars().all(|c| c.is_ascii_digit());
    Ok(if fits { text } else { String::new() })
}

/// The same of a key, such as `SEC-12`.
fn key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let fits = text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
    Ok(if fits { text } else { String::new() })
}

/// What a search found.
pub(super) enum Found {
    /// Nothing: the answer was empty.
    Nothing,
    /// The issue that was asked for.
    Issue(Issue),
    /// Only others, such as those whose labels differ in case, or those that do not show their labels.
    Foreign,
}
