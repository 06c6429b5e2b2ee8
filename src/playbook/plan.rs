//! Deciding: does a playbook apply, is a step called for, and with which parameters.

use std::borrow::Cow;
use std::error::Error as _;

use jiff::tz::TimeZone;
use serde_json::{Map, Value};
use thiserror::Error;

use super::facts::cut;
use super::{Condition, ConditionError, Fact, FactSet, Facts, Playbook, Step};
use crate::connectors::{ActionKind, FromEvent};
use crate::model::event::Event;

/// The most bytes of a message.
const MAX_MESSAGE: usize = 600;

/// What came of preparing a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Prepared {
    /// These facts have to be fetched (or found missing) first; then prepare it again.
    NeedsFacts(FactSet),
    /// It is called for.
    Ready {
        /// The final parameters; they have passed the action's check.
        params: Value,
        /// The one thing it changes, if it changes one.
        lane: Option<String>,
    },
    /// Its condition is false.
    NotCalledFor {
        /// The sentence to record.
        why: String,
    },
    /// It can't be told whether it is called for, or its parameters can't be filled.
    Failed {
        /// The sentence to record: which playbook, step and expression, and why.
        message: String,
    },
}

/// A playbook whose condition gave no answer for an event.
#[derive(Debug, Error)]
#[error("playbook `{playbook}`: the condition `{condition}` gave no answer")]
pub struct PlanError {
    /// The playbook.
    pub playbook: String,
    /// Its condition, cut.
    pub condition: String,
    /// Why.
    #[source]
    pub source: ConditionError,
}

/// The facts without which [`applies`] cannot answer.
pub fn applying_facts(playbook: &Playbook) -> FactSet {
    playbook.when.as_ref().map_or(FactSet::EMPTY, Condition::facts_named)
}

/// Those of them that nobody has asked for yet.
pub fn open_to_apply(playbook: &Playbook, facts: &Facts) -> FactSet {
    playbook.when.as_ref().map_or(FactSet::EMPTY, |when| when.facts_open(facts))
}

/// The facts that have to be fetched before the decision commits: those that the playbook's condition names, and those
/// that the steps which change access name anywhere, because what they change must be known by then. What only describes
/// (tickets, messages) is fetched when its step is prepared, so that a slow service never delays a quarantine.
pub fn deciding_facts(playbook: &Playbook) -> FactSet {
    let acting = playbook.steps.iter().filter(|step| step.action.changes_access);
    let named = acting.fold(applying_facts(playbook), |set, step| set.union(step.facts_named()));
    // The past is asked for once, when the event is decided: that costs no request, and later it would be longer ago.
    let past: FactSet = playbook.questions().iter().take(1).map(|_| Fact::Past).collect();
    named.union(past)
}

/// Whether a playbook applies to the event of these facts. Its event type is not looked at; see [`Playbook::wants`].
pub fn applies(playbook: &Playbook, facts: &Facts) -> Result<bool, PlanError> {
    let Some(when) = &playbook.when else { return Ok(true) };
    when.evaluate(facts).map_err(|source| PlanError {
        playbook: playbook.name.clone(),
        condition: cut(when.text(), 200).to_owned(),
        source,
    })
}

/// Prepares a step of a playbook of which it is not certain that it applies: a person wants it tried again, and it may never
/// have been known. Else like [`prepare`].
pub fn prepare_if_it_applies(playbook: &Playbook, step: &Step, facts: &Facts, event: &Event) -> Prepared {
    let open = open_to_apply(playbook, facts);
    if !open.is_empty() {
        return Prepared::NeedsFacts(open);
    }
    match applies(playbook, facts) {
        Ok(true) => prepare(playbook, step, facts, event),
        Ok(false) => {
            Prepared::NotCalledFor { why: format!("the condition of the playbook `{}` is false", playbook.name) }
        }
        Err(error) => {
            let message = format!("{error}: {}", error.source);
            Prepared::Failed { message: cut(&message, MAX_MESSAGE).to_owned() }
        }
    }
}

/// Prepares a step: asks its condition, fills its parameters, lets the action check them and names its lane.
pub fn prepare(playbook: &Playbook, step: &Step, facts: &Facts, event: &Event) -> Prepared {
    match try_prepare(step, facts, event) {
        Ok(prepared) => prepared,
        Err(why) => {
            let message = format!("playbook `{}`, step `{}`: {why}", playbook.name, step.name);
            Prepared::Failed { message: cut(&message, MAX_MESSAGE).to_owned() }
        }
    }
}

fn try_prepare(step: &Step, facts: &Facts, event: &Event) -> Result<Prepared, String> {
    if let Some(when) = &step.when {
        let open = when.facts_open(facts);
        if !open.is_empty() {
            return Ok(Prepared::NeedsFacts(open));
        }
        let condition = cut(when.text(), 200);
        match when.evaluate(facts) {
            Ok(true) => {}
            Ok(false) => return Ok(Prepared::NotCalledFor { why: format!("the condition `{condition}` is false") }),
            Err(error) => return Err(format!("the condition `{condition}` gave no answer: {error}")),
        }
    }
    let open = facts.not_fetched(step.with.facts_named());
    if !open.is_empty() {
        return Ok(Prepared::NeedsFacts(open));
    }
    // What changes something is never filled with words that stand for what is not known.
    let told = if step.action.changes_access { Cow::Borrowed(facts) } else { facts.for_telling() };
    let mut params = step.with.render(&told).map_err(|error| match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })?;
    fill_from_event(step.action, &mut params, event)?;
    let params = Value::Object(params);
    (step.action.check)(&params).map_err(|why| format!("`{}` refuses its parameters: {why}", step.action.name))?;
    let lane = (step.action.lane)(&params);
    Ok(Prepared::Ready { params, lane })
}

/// Puts in what the step left out and the event knows. What the step gives itself is never replaced.
fn fill_from_event(kind: &ActionKind, params: &mut Map<String, Value>, event: &Event) -> Result<(), String> {
    for (name, what) in kind.from_event {
        if params.contains_key(*name) || !what.fills(params) {
            continue;
        }
        let (id, noun) = match what {
            FromEvent::UserId => (event.affected_user().map(|user| user.id), "user"),
            FromEvent::AppId => (event.target("AppInstance").map(|app| app.id), "app"),
            FromEvent::DeviceId => (event.device(), "device"),
            FromEvent::UserDay => {
                let day = event.published.to_zoned(TimeZone::UTC).date();
                let user_day = event.affected_user().map(|user| Value::from(format!("{} {day}", user.id)));
                params.extend(user_day.map(|value| ((*name).to_owned(), value)));
                continue;
            }
        };
        let Some(id) = id else {
            return Err(format!(
                "the event names no affected {noun}, so `{}` needs the parameter `{name}` in its `with`",
                kind.name
            ));
        };
        params.insert((*name).to_owned(), Value::from(id));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::parse::tests::{ADD_USER, compile};
    use super::*;
    use crate::model::event::SOURCE_OKTA;
    use crate::playbook::{FactValue, LinkBase, StepView};

    const PLAYBOOK: &str = r#"
        name = "p"
        on = ["user.risk.detect"]
        when = 'risk.level != "UNKNOWN"'
        [[step]]
        name = "quarantine"
        when = 'risk.level == "HIGH" && user_risk != "LOW"'
        action = "okta.group.add_user"
        with = { group = "{{ user.profile.department }} quarantine" }
        [[step]]
        name = "tell"
        after = ["quarantine"]
        when = 'groups.exists(g, g == "Staff")'
        action = "slack.message.post"
        with = { channel = "C1", text = "{{ manager.login }} {{ steps.quarantine.state }} {{ event.displayMessage }}" }
    "#;

    fn event(level: &str, target: Value) -> Event {
        let body = json!({
            "uuid": "u-1", "eventType": "user.risk.detect", "published": "2026-08-24T10:15:02.102Z",
            "displayMessage": "<!channel> {{ 7 * 7 }}", "target": target,
            "debugContext": {"debugData": {"risk": format!("{{level={level}}}")}},
        });
        Event::parse(SOURCE_OKTA, &body.to_string()).unwrap()
    }

    fn user() -> Value {
        json!([{"id": "00u1", "type": "User", "alternateId": "ann@example.com"}])
    }

    fn facts(event: &Event) -> Facts {
        Facts::from_event(event.clone(), &LinkBase::new("https://acme.okta.com", None))
    }

    fn known(facts: &mut Facts) {
        facts.set(Fact::User, FactValue::Known(json!({"profile": {"department": "Sales"}})));
        facts.set(Fact::UserRisk, FactValue::Known(json!("HIGH")));
        facts.set(Fact::Groups, FactValue::Known(json!(["Staff"])));
        facts.set(Fact::Manager, FactValue::Known(json!({"login": "bob@example.com"})));
        facts.set_step("quarantine", StepView { state: "succeeded".to_owned(), ..StepView::default() });
    }

    #[test]
    fn a_fact_that_was_given_up_stands_in_a_text_as_not_known_and_decides_nothing() {
        let event = event("HIGH", user());
        let mut facts = facts(&event);
        known(&mut facts);
        let given_up = || FactValue::GivenUp("it could not be had in time: Okta answered 500".to_owned());
        facts.set(Fact::Manager, given_up());
        let playbook = compile(PLAYBOOK).unwrap();
        let told = prepare(&playbook, playbook.step("tell").unwrap(), &facts, &event);
        let Prepared::Ready { params, .. } = told else { panic!("{told:?}") };
        let text = params["text"].as_str().unwrap();
        assert!(text.starts_with("(not known: Okta could not be asked) succeeded"), "{text}");
        // A condition, and what a change is filled with, do not take words for an answer.
        facts.set(Fact::Groups, given_up());
        check_failed(&event, &facts, "tell", "Okta answered 500");
        facts.set(Fact::User, given_up());
        check_failed(&event, &facts, "quarantine", "Okta answered 500");
        // Who tries it again asks again.
        let stored = facts.fetched_json();
        assert!(stored.get("user_risk").is_some() && stored.get("user").is_none(), "{stored}");
    }

    #[test]
    fn a_step_that_is_tried_again_is_not_done_when_its_playbook_does_not_apply() {
        let text = PLAYBOOK.replace("risk.level != \"UNKNOWN\"", "user_risk == \"HIGH\"");
        let playbook = compile(&text).unwrap();
        let event = event("HIGH", user());
        let mut facts = facts(&event);
        let look =
            |facts: &Facts| prepare_if_it_applies(&playbook, playbook.step("quarantine").unwrap(), facts, &event);
        assert_eq!(look(&facts), Prepared::NeedsFacts([Fact::UserRisk].into_iter().collect()));
        known(&mut facts);
        assert!(matches!(look(&facts), Prepared::Ready { .. }));
        facts.set(Fact::UserRisk, FactValue::Known(json!("LOW")));
        assert!(matches!(look(&facts), Prepared::NotCalledFor { .. }));
        facts.set(Fact::UserRisk, FactValue::GivenUp("no answer".to_owned()));
        let Prepared::Failed { message } = look(&facts) else { panic!("it was decided without the fact") };
        assert!(message.contains("no answer"), "{message}");
    }

    #[track_caller]
    fn check(event: &Event, facts: &Facts, step: &str, expected: Prepared) {
        let playbook = compile(PLAYBOOK).unwrap();
        assert_eq!(prepare(&playbook, playbook.step(step).unwrap(), facts, event), expected);
    }

    #[track_caller]
    fn check_failed(event: &Event, facts: &Facts, step: &str, part: &str) {
        let playbook = compile(PLAYBOOK).unwrap();
        match prepare(&playbook, playbook.step(step).unwrap(), facts, event) {
            Prepared::Failed { message } => {
                assert!(message.starts_with(&format!("playbook `p`, step `{step}`: ")), "{message}");
                assert!(message.contains(part), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_what_acts_delays_the_decision() {
        let playbook = compile(PLAYBOOK).unwrap();
        assert_eq!(applying_facts(&playbook), FactSet::EMPTY);
        assert_eq!(deciding_facts(&playbook).to_string(), "user, user_risk");
    }

    #[test]
    fn a_playbook_applies_when_its_condition_says_so() {
        let playbook = compile(PLAYBOOK).unwrap();
        assert!(applies(&playbook, &facts(&event("HIGH", user()))).unwrap());
        assert!(!applies(&playbook, &facts(&event("?", user()))).unwrap());
        let asking = compile(&PLAYBOOK.replace("'risk.level !=", "'user_risk !=")).unwrap();
        assert_eq!(applying_facts(&asking).to_string(), "user_risk");
        let error = applies(&asking, &facts(&event("HIGH", user()))).unwrap_err();
        assert!(error.to_string().contains("`user_risk != \"UNKNOWN\"`"), "{error}");
    }

    #[test]
    fn facts_are_asked_for_one_expression_at_a_time() {
        let event = event("HIGH", user());
        let mut facts = facts(&event);
        check(&event, &facts, "quarantine", Prepared::NeedsFacts([Fact::UserRisk].into_iter().collect()));
        facts.set(Fact::UserRisk, FactValue::Known(json!("HIGH")));
        check(&event, &facts, "quarantine", Prepared::NeedsFacts([Fact::User].into_iter().collect()));
        known(&mut facts);
        let params = json!({"user": "00u1", "group": "Sales quarantine"});
        check(&event, &facts, "quarantine", Prepared::Ready { params, lane: Some("00u1/Sales quarantine".to_owned()) });
    }

    #[test]
    fn a_false_condition_is_told() {
        let event = event("LOW", user());
        let mut facts = facts(&event);
        known(&mut facts);
        let why = "the condition `risk.level == \"HIGH\" && user_risk != \"LOW\"` is false".to_owned();
        check(&event, &facts, "quarantine", Prepared::NotCalledFor { why });
    }

    #[test]
    fn an_event_without_a_user_fails_the_step_that_needs_one() {
        let event = event("HIGH", Value::Null);
        let mut facts = facts(&event);
        known(&mut facts);
        check_failed(&event, &facts, "quarantine", "the event names no affected user");
    }

    #[test]
    fn a_missing_fact_fails_what_uses_it_with_its_reason() {
        let event = event("HIGH", user());
        let mut facts = facts(&event);
        known(&mut facts);
        facts.set(Fact::Manager, FactValue::Missing("Okta answered 403".to_owned()));
        check_failed(
            &event,
            &facts,
            "tell",
            "the parameter `text` cannot be filled: the fact `manager` is not known: Okta answered 403",
        );
        facts.set(Fact::Groups, FactValue::Missing("no answer".to_owned()));
        check_failed(&event, &facts, "tell", "the fact `groups` is not known: no answer");
    }

    #[test]
    fn a_thread_is_about_the_user_and_the_utc_day_of_the_event() {
        let text = "name = \"p\"\non = [\"user.risk.detect\"]\n[[step]]\nname = \"tell\"\naction = \"slack.message.post\"\n\
                    with = { channel = \"C1\", text = \"t\", thread = \"user_day\" }";
        let playbook = Playbook::compile(&toml::from_str(text).unwrap(), &crate::connectors::catalogue()).unwrap();
        let told = |target: Value| {
            let event = event("HIGH", target);
            match prepare(&playbook, playbook.step("tell").unwrap(), &facts(&event), &event) {
                Prepared::Ready { params, lane } => (params.get("thread_of").cloned(), lane),
                other => panic!("{other:?}"),
            }
        };
        let lane = "slack.message/C1/00u1 2026-08-24".to_owned();
        assert_eq!(told(user()), (Some(json!("00u1 2026-08-24")), Some(lane)));
        assert_eq!(told(Value::Null), (None, None), "an event without a user is told all the same");
    }

    #[test]
    fn event_text_reaches_a_message_escaped_and_unevaluated() {
        let event = event("HIGH", user());
        let mut facts = facts(&event);
        known(&mut facts);
        let text = "bob@example.com succeeded &lt;!channel&gt; {{ 7 * 7 }}";
        check(&event, &facts, "tell", Prepared::Ready { params: json!({"channel": "C1", "text": text}), lane: None });
    }

    /// Takes both the user and the app from the event.
    static UNASSIGN: ActionKind = ActionKind {
        name: "okta.app.unassign_user",
        summary: "takes the app from the user",
        from_event: &[("user", FromEvent::UserId), ("app", FromEvent::AppId)],
        check: |params| if params["app"] == "0oaX" { Err("not this one".to_owned()) } else { Ok(()) },
        lane: |params| Some(params["app"].as_str()?.to_owned()),
        ..ADD_USER
    };

    #[track_caller]
    fn check_unassign(with: &str, target: Value, expected: Prepared) {
        let config = format!(
            "name = \"p\"\non = [\"x\"]\n[[step]]\nname = \"s\"\naction = \"okta.app.unassign_user\"\nwith = {{ {with} }}"
        );
        let playbook = Playbook::compile(&toml::from_str(&config).unwrap(), &[&UNASSIGN]).unwrap();
        let event = event("HIGH", target);
        let [step] = playbook.steps.as_slice() else { panic!("one step") };
        assert_eq!(prepare(&playbook, step, &facts(&event), &event), expected);
    }

    #[test]
    fn what_the_step_leaves_out_is_taken_from_the_event_and_nothing_it_gives_is_replaced() {
        let both = || json!([{"id": "0oa1", "type": "AppInstance"}, {"id": "00u1", "type": "User"}]);
        let ready = |user: &str, app: &str| Prepared::Ready {
            params: json!({"user": user, "app": app}),
            lane: Some(app.to_owned()),
        };
        check_unassign("", both(), ready("00u1", "0oa1"));
        check_unassign("user = \"00u9\"", both(), ready("00u9", "0oa1"));
        check_unassign("app = \"0oa9\"", both(), ready("00u1", "0oa9"));
        check_unassign("app = \"0oa9\"", user(), ready("00u1", "0oa9"));
        let failed = |why: &str| Prepared::Failed { message: format!("playbook `p`, step `s`: {why}") };
        check_unassign(
            "",
            user(),
            failed(
                "the event names no affected app, so `okta.app.unassign_user` needs the parameter `app` in its `with`",
            ),
        );
        check_unassign(
            "app = \"0oa{{ 'X' }}\"",
            user(),
            failed("`okta.app.unassign_user` refuses its parameters: not this one"),
        );
    }

    #[test]
    fn a_message_about_a_failure_is_cut_at_its_bound() {
        let event = event("HIGH", user());
        let mut facts = facts(&event);
        known(&mut facts);
        facts.set(Fact::Manager, FactValue::Missing("x".repeat(500)));
        let name = "p".repeat(60);
        let playbook = compile(&PLAYBOOK.replace("\"p\"", &format!("\"{name}\""))).unwrap();
        match prepare(&playbook, playbook.step("tell").unwrap(), &facts, &event) {
            Prepared::Failed { message } => {
                assert!(message.starts_with(&format!("playbook `{name}`")) && message.ends_with("xxx"), "{message}");
                assert_eq!(message.len(), MAX_MESSAGE);
            }
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn no_event_makes_planning_panic(
            level in "\\PC{0,40}", id in "\\PC{0,40}", login in any::<String>(), department in any::<String>(),
        ) {
            let event = event(&level, json!([{"id": id, "type": "User", "alternateId": login}]));
            let playbook = compile(PLAYBOOK).unwrap();
            let mut facts = facts(&event);
            known(&mut facts);
            facts.set(Fact::User, FactValue::Known(json!({"profile": {"department": department}})));
            prop_assert!(applies(&playbook, &facts).is_ok());
            for step in &playbook.steps {
                match prepare(&playbook, step, &facts, &event) {
                    Prepared::Failed { message } => prop_assert!(message.len() <= MAX_MESSAGE),
                    Prepared::NeedsFacts(open) => prop_assert!(false, "asked again for {}", open),
                    _ => {}
                }
            }
        }
    }
}
