//! The parameters of a step, filled in from templates.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use thiserror::Error;

use super::{CompileError, FactSet, Facts, Template, TemplateError};
use crate::connectors::ActionKind;
use crate::model::escape::Escape;

/// The parameters of a step: every string at any depth is a template, everything else stays as it is.
#[derive(Debug)]
pub struct ParamTemplates(Vec<(String, Node)>);

/// A parameter whose template gave no text.
#[derive(Debug, Error)]
#[error("the parameter `{parameter}` cannot be filled")]
pub struct ParamError {
    /// The parameter's name.
    pub parameter: String,
    /// Why.
    #[source]
    pub source: TemplateError,
}

#[derive(Debug)]
enum Node {
    Text(Box<Template>),
    Fixed(Value),
    List(Vec<Node>),
    Table(Vec<(String, Node)>),
}

impl ParamTemplates {
    /// Compiles the `with` table of a step. Every problem is returned, with the parameter it belongs to.
    pub fn compile(kind: &ActionKind, with: &toml::Table) -> Result<Self, Vec<(String, CompileError)>> {
        let mut problems = Vec::new();
        let params = with
            .iter()
            .map(|(name, value)| {
                let mut found = Vec::new();
                let node = Node::compile(value, (kind.escape)(name), &mut found);
                problems.extend(found.into_iter().map(|problem| (name.clone(), problem)));
                (name.clone(), node)
            })
            .collect();
        if problems.is_empty() { Ok(Self(params)) } else { Err(problems) }
    }

    /// The facts that any parameter names.
    pub fn facts_named(&self) -> FactSet {
        self.templates().fold(FactSet::EMPTY, |set, template| set.union(template.facts_named()))
    }

    /// The steps that any parameter reads, as identifiers.
    pub fn steps_named(&self) -> BTreeSet<String> {
        self.templates().flat_map(|template| template.steps_named().iter().cloned()).collect()
    }

    /// The parameters with their templates unrendered, as the typed check of an action takes them.
    pub fn unrendered(&self) -> Map<String, Value> {
        self.0.iter().map(|(name, node)| (name.clone(), node.unrendered())).collect()
    }

    /// The parameters with their templates filled in.
    pub fn render(&self, facts: &Facts) -> Result<Map<String, Value>, ParamError> {
        let mut params = Map::new();
        for (name, node) in &self.0 {
            let value = node.render(facts).map_err(|source| ParamError { parameter: name.clone(), source })?;
            params.insert(name.clone(), value);
        }
        Ok(params)
    }

    /// The parameters as far as they can be filled in: a parameter that cannot keeps its templates.
    pub fn render_known(&self, facts: &Facts) -> Map<String, Value> {
        let filled = |node: &Node| node.render(facts).unwrap_or_else(|_| node.unrendered());
        self.0.iter().map(|(name, node)| (name.clone(), filled(node))).collect()
    }

    fn templates(&self) -> impl Iterator<Item = &Template> {
        let mut open: Vec<&Node> = self.0.iter().map(|(_, node)| node).collect();
        std::iter::from_fn(move || {
            loop {
                match open.pop()? {
                    Node::Text(template) => return Some(template.as_ref()),
                    Node::Fixed(_) => {}
                    Node::List(list) => open.extend(list),
                    Node::Table(table) => open.extend(table.iter().map(|(_, node)| node)),
                }
            }
        })
    }
}

impl Node {
    fn compile(value: &toml::Value, escape: Escape, problems: &mut Vec<CompileError>) -> Self {
        match value {
            toml::Value::String(text) => match Template::compile(text, escape) {
                Ok(template) => Self::Text(Box::new(template)),
                Err(problem) => {
                    problems.push(problem);
                    Self::Fixed(Value::Null)
                }
            },
            toml::Value::Integer(number) => Self::Fixed(Value::from(*number)),
            toml::Value::Float(number) => Self::Fixed(Value::from(*number)),
            toml::Value::Boolean(flag) => Self::Fixed(Value::from(*flag)),
            toml::Value::Datetime(moment) => Self::Fixed(Value::from(moment.to_string())),
            toml::Value::Array(list) => {
                Self::List(list.iter().map(|item| Self::compile(item, escape, problems)).collect())
            }
            toml::Value::Table(table) => Self::Table(
                table.iter().map(|(key, item)| (key.clone(), Self::compile(item, escape, problems))).collect(),
            ),
        }
    }

    fn unrendered(&self) -> Value {
        match self {
            Self::Text(template) => Value::from(template.text()),
            Self::Fixed(value) => value.clone(),
            Self::List(list) => list.iter().map(Self::unrendered).collect(),
            Self::Table(table) => table.iter().map(|(key, node)| (key.clone(), node.unrendered())).collect(),
        }
    }

    fn render(&self, facts: &Facts) -> Result<Value, TemplateError> {
        Ok(match self {
            Self::Text(template) => Value::from(template.render(facts)?),
            Self::Fixed(value) => value.clone(),
            Self::List(list) => Value::Array(list.iter().map(|node| node.render(facts)).collect::<Result<_, _>>()?),
            Self::Table(table) => {
                let fields = table.iter().map(|(key, node)| Ok((key.clone(), node.render(facts)?)));
                Value::Object(fields.collect::<Result<_, TemplateError>>()?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::parse::tests::POST;
    use super::*;
    use crate::model::event::{Event, SOURCE_OKTA};
    use crate::playbook::LinkBase;

    fn facts() -> Facts {
        let body =
            json!({"uuid": "u", "eventType": "x", "published": "2026-08-24T10:15:02.102Z", "displayMessage": "<a>"});
        let event = Event::parse(SOURCE_OKTA, &body.to_string()).unwrap();
        Facts::from_event(event, &LinkBase::new("https://acme.okta.com", None))
    }

    fn compile(with: &str) -> Result<ParamTemplates, Vec<(String, CompileError)>> {
        ParamTemplates::compile(&POST, &toml::from_str(with).unwrap())
    }

    #[track_caller]
    fn check(with: &str, expected: Value) {
        assert_eq!(Value::Object(compile(with).unwrap().render(&facts()).unwrap()), expected);
    }

    #[test]
    fn strings_at_any_depth_are_templates_and_the_rest_stays() {
        check(
            "urgency = 1\nshare = 0.5\nnotify = true\nfields = [{ title = \"{{ event.displayMessage }}\", wide = false }]",
            json!({"urgency": 1, "share": 0.5, "notify": true, "fields": [{"title": "<a>", "wide": false}]}),
        );
    }

    #[test]
    fn each_parameter_is_escaped_as_its_action_says() {
        check(
            "channel = \"{{ event.displayMessage }}\"\ntext = \"{{ event.displayMessage }}\"",
            json!({"channel": "<a>", "text": "&lt;a&gt;"}),
        );
    }

    #[test]
    fn every_wrong_template_is_told_with_its_parameter() {
        let problems = compile("text = \"{{ weather }}\"\nfields = [\"{{\", { a = \"{% set x = 1 %}\" }]").unwrap_err();
        let names: Vec<_> = problems.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["fields", "fields", "text"]);
    }

    #[test]
    fn what_nested_templates_name_is_told() {
        let params =
            compile("fields = [{ a = [\"{{ user.login }}\"] }]\ntext = \"{{ manager.login }}{{ steps.a.url }}\"")
                .unwrap();
        assert_eq!(params.facts_named().to_string(), "user, manager");
        assert!(params.steps_named().contains("a"));
    }

    #[test]
    fn a_parameter_that_cannot_be_filled_is_named() {
        let error = compile("text = \"{{ event.weather }}\"").unwrap().render(&facts()).unwrap_err();
        assert_eq!(error.parameter, "text");
    }

    #[test]
    fn a_parameter_that_cannot_be_filled_yet_keeps_its_templates_and_the_others_are_filled() {
        let params = compile(
            "text = \"{{ event.displayMessage }}\"\nchannel = \"{{ manager.login }}\"\n\
             fields = [{ title = \"{{ manager.login }}\", n = 1 }, \"x\", { at = 2026-08-24T10:15:02Z }]",
        )
        .unwrap();
        let fields = json!([{"title": "{{ manager.login }}", "n": 1}, "x", {"at": "2026-08-24T10:15:02Z"}]);
        let filled = json!({"text": "&lt;a&gt;", "channel": "{{ manager.login }}", "fields": fields});
        assert_eq!(Value::Object(params.render_known(&facts())), filled);
        let unrendered =
            json!({"text": "{{ event.displayMessage }}", "channel": "{{ manager.login }}", "fields": fields});
        assert_eq!(Value::Object(params.unrendered()), unrendered);
    }

    #[test]
    fn a_step_that_is_named_anywhere_is_told() {
        let params = compile("fields = [\"{{ steps.a.url }}\", { t = \"{{ steps.b.id }}\" }]\ntext = \"x\"").unwrap();
        assert_eq!(params.steps_named().into_iter().collect::<Vec<_>>(), ["a", "b"]);
        assert!(params.facts_named().is_empty());
    }
}
