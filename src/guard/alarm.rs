//! The message to people when a playbook goes over a limit.

use serde_json::Value;

use super::fold;
use crate::config::AlarmConfig;
use crate::connectors::{self, ActionKind};
use crate::model::action::InDoubt;

/// The step under which the alarm stands in the run that caused it. No step of a playbook has this name.
pub const STEP: &str = "guard-alarm";

/// What may stand in the alarm's texts, besides plain text.
pub const NAMES: [&str; 2] = ["playbook", "why"];

const TEXT: &str = "okta-responder: the playbook `{{ playbook }}` is stopped: {{ why }}. Its changes of access wait for a \
                    person. Look: okta-responder actions list --state awaiting_approval --playbook \"{{ playbook }}\". \
                    Go on: okta-responder resume --playbook \"{{ playbook }}\"";
const SUBJECT: &str = "okta-responder: the playbook {{ playbook }} is stopped";

/// `[guard.alarm]`, whose action is known.
#[derive(Debug, Clone)]
pub(super) struct Alarm {
    kind: &'static ActionKind,
    with: Value,
}

/// An alarm with its final parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// `connector.noun.verb`
    pub kind: &'static str,
    /// Final parameters.
    pub params: Value,
    /// What to do in doubt.
    pub in_doubt: InDoubt,
}

impl Alarm {
    pub(super) fn new(config: &AlarmConfig) -> Option<Self> {
        let kind = connectors::kind(&config.action)?;
        Some(Self { kind, with: with_defaults(config) })
    }

    pub(super) fn message(&self, playbook: &str, why: &str) -> Message {
        let mut params = self.with.clone();
        if let Value::Object(params) = &mut params {
            for (name, value) in params.iter_mut() {
                let escape = (self.kind.escape)(name);
                fill(value, &escape.apply(playbook), &escape.apply(why));
            }
        }
        let in_doubt = connectors::effect(self.kind, &params).default_in_doubt();
        Message { kind: self.kind.name, params, in_doubt }
    }
}

/// What is wrong with an alarm, in a sentence.
///
/// # Errors
/// When its action does not exist, changes access, or refuses its parameters; or when a text names what there is not.
pub fn check(config: &AlarmConfig) -> Result<(), String> {
    let kind = connectors::kind(&config.action).ok_or_else(|| format!("there is no action `{}`", config.action))?;
    if kind.changes_access {
        return Err(format!("`{}` changes access, and an alarm only tells", kind.name));
    }
    if kind.name == "slack.message.update" {
        return Err(format!("`{}` edits a message, and an alarm is one of its own", kind.name));
    }
    let with = with_defaults(config);
    names_only(&with)?;
    (kind.check)(&with).map_err(|why| format!("`{}` refuses its parameters: {why}", kind.name))
}

/// The parameters, with texts of our own where the action wants some and the configuration gives none.
fn with_defaults(config: &AlarmConfig) -> Value {
    let mut with = serde_json::to_value(&config.with).unwrap_or_default();
    let wanted: &[(&str, &str)] = match config.action.as_str() {
        "email.send" => &[("subject", SUBJECT), ("text", TEXT)],
        "servicenow.incident.create" => &[("short_description", SUBJECT), ("description", TEXT)],
        "jira.issue.create" => &[("summary", SUBJECT), ("description", TEXT)],
        "pagerduty.event.trigger" => &[("summary", TEXT)],
        "http.request" => &[],
        _ => &[("text", TEXT)],
    };
    if let Value::Object(params) = &mut with {
        for (name, text) in wanted {
            params.entry(*name).or_insert_with(|| Value::from(*text));
        }
    }
    with
}

fn fill(value: &mut Value, playbook: &str, why: &str) {
    match value {
        Value::String(text) => {
            // One pass, so that nothing in a value is taken for a name.
            let mut out = String::with_capacity(text.len());
            for (at, part) in text.split("{{").enumerate() {
                match (at, part.split_once("}}")) {
                    (0, _) | (_, None) => out.push_str(part),
                    (_, Some((name, rest))) => {
                        out.push_str(if name.trim() == "playbook" { playbook } else { why });
                        out.push_str(rest);
                    }
                }
            }
            *text = out;
        }
        Value::Array(list) => list.iter_mut().for_each(|item| fill(item, playbook, why)),
        Value::Object(object) => object.values_mut().for_each(|item| fill(item, playbook, why)),
        _ => {}
    }
}

fn names_only(value: &Value) -> Result<(), String> {
    match value {
        Value::String(text) if text.contains("{%") => Err("an alarm has no conditions: {% … %}".to_owned()),
        Value::String(text) => text.split("{{").skip(1).try_for_each(|part| match part.split_once("}}") {
            Some((name, _)) if NAMES.contains(&name.trim()) => Ok(()),
            Some((name, _)) => {
                Err(format!("an alarm knows only {{{{ playbook }}}} and {{{{ why }}}}, not `{}`", name.trim()))
            }
            None => Err("`{{` without `}}`".to_owned()),
        }),
        Value::Array(list) => list.iter().try_for_each(names_only),
        Value::Object(object) => object.values().try_for_each(names_only),
        _ => Ok(()),
    }
}

/// Whether a step of a playbook would be taken for the alarm.
pub fn is_reserved(step: &str) -> bool {
    fold(step) == STEP
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(action: &str, with: &str) -> AlarmConfig {
        AlarmConfig { action: action.to_owned(), with: toml::from_str(with).unwrap() }
    }

    #[track_caller]
    fn message(action: &str, with: &str) -> Value {
        let config = config(action, with);
        check(&config).unwrap();
        Alarm::new(&config).unwrap().message("<p>", "too {{ playbook }} much").params
    }

    #[test]
    fn an_alarm_names_the_playbook_and_the_reason_escaped_for_its_place() {
        let params = message("slack.message.post", "channel = '#a'\ntext = 'of {{ playbook }}: {{why}}{{ why }}!'");
        let text = "of &lt;p&gt;: too {{ playbook }} muchtoo {{ playbook }} much!";
        assert_eq!(params, json!({"channel": "#a", "text": text}));
    }

    #[test]
    fn texts_at_any_depth_are_filled_and_checked() {
        let section = "{ type = 'section', fields = [{ type = 'mrkdwn', text = '{{ playbook }}' }], expand = true }";
        let filled = message("slack.message.post", &format!("blocks = [{section}]\ntext = 't'"));
        let fields = json!([{"type": "mrkdwn", "text": "&lt;p&gt;"}]);
        assert_eq!(filled["blocks"], json!([{"type": "section", "fields": fields, "expand": true}]));
        for blocks in ["[['{{ user }}']]", "[{ a = '{{ user }}' }]"] {
            let config = config("slack.message.post", &format!("blocks = {blocks}"));
            assert!(check(&config).unwrap_err().ends_with("not `user`"));
        }
    }

    #[test]
    fn texts_have_a_default() {
        let slack = message("slack.message.post", "channel = '#a'");
        assert!(slack["text"].as_str().unwrap().contains("resume --playbook"), "{slack}");
        let mail = message("email.send", "to = 'a@example.com'\nsubject = 'mine'");
        assert_eq!(mail["subject"], "mine");
        assert!(mail["text"].as_str().unwrap().contains("<p>"), "{mail}");
        let mail = message("email.send", "to = 'a@example.com'");
        assert_eq!(mail["subject"], "okta-responder: the playbook <p> is stopped");
        let ticket = message("servicenow.incident.create", "");
        assert!(ticket["short_description"].as_str().unwrap().contains("is stopped"), "{ticket}");
        assert!(ticket["description"].as_str().unwrap().contains("too"), "{ticket}");
        let issue = message("jira.issue.create", "project = 'SEC'\nissue_type = 'Task'");
        assert!(issue["summary"].as_str().unwrap().contains("is stopped"), "{issue}");
        assert!(issue["description"].as_str().unwrap().contains("too"), "{issue}");
        let alert = message("pagerduty.event.trigger", "");
        assert!(alert["summary"].as_str().unwrap().contains("resume --playbook"), "{alert}");
    }

    #[test]
    fn an_alarm_that_cannot_be_sent_is_told() {
        for (action, with, part) in [
            ("slack.message.send", "", "there is no action"),
            ("okta.user.clear_sessions", "", "changes access"),
            ("slack.message.update", "message = 'tell'", "edits a message"),
            ("slack.message.post", "channel = '#a'\ntext = '{{ user.login }}'", "not `user.login`"),
            ("slack.message.post", "channel = '#a'\ntext = '{{ why'", "without"),
            ("slack.message.post", "channel = '#a'\ntext = '{% if why %}'", "no conditions"),
            ("slack.message.post", "chanel = '#a'", "refuses its parameters"),
        ] {
            let why = check(&config(action, with)).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn an_alarm_may_go_to_any_service_in_words_of_its_own() {
        let with = "service = 'pager'\nmethod = 'POST'\npath = '/alarms/{{ playbook }}'\njson = { text = '{{ why }}' }";
        let sent = message("http.request", with);
        let path = "/alarms/%3Cp%3E";
        let json = json!({"text": "too {{ playbook }} much"});
        assert_eq!(sent, json!({"service": "pager", "method": "POST", "path": path, "json": json}));
        assert!(check(&config("http.access.change", with)).unwrap_err().contains("an alarm only tells"));
    }

    #[test]
    fn no_step_of_a_playbook_can_have_its_name() {
        assert!(is_reserved("guard-alarm") && is_reserved(" Guard-Alarm"));
        assert!(!is_reserved("tell"));
    }
}
