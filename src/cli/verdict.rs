//! What a test expects, against what would be done. Pure.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::rehearsal::{Part, Run, StepState};
use crate::config::playtest::{Expected, ExpectedState, Playtest, parts};

/// One thing that is not as the test says.
#[derive(Debug, Serialize)]
pub(super) struct Difference {
    pub playbook: String,
    pub step: String,
    pub what: What,
    /// The parameter that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planned: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What the condition reads, and what stands there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reads: BTreeMap<String, Value>,
}

/// In which way it differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    /// It is expected and not called for.
    Missing,
    /// It is called for and not expected.
    Surplus,
    /// It can't be told without a fact that the test does not give.
    Unknown,
    /// It ends otherwise than expected.
    State,
    /// It does another thing.
    Action,
    /// It has another parameter.
    Parameter,
    /// It is done at another time.
    Delay,
    /// It has another reason.
    Why,
}

/// Everything in which what would be done is not as the test says. The runs are those of the playbooks that are asked.
pub(super) fn judge(test: &Playtest, runs: &[Run]) -> Vec<Difference> {
    let mut found = Vec::new();
    for expected in &test.expect {
        match runs.iter().find(|run| run.playbook == expected.playbook) {
            Some(run) => judge_expected(expected, run, &mut found),
            None => {
                let why = Some("its actor is one of [guard] own_ids, so it starts nothing".to_owned());
                found.push(Difference { why, ..difference(&expected.playbook, &expected.step, What::Missing) });
            }
        }
    }
    for run in runs {
        for part in run.steps.iter().filter(|part| !is_expected(test, run, part)) {
            let unwanted = test.not.contains(&part.step) && part.state != StepState::Refused;
            let counts = match part.state {
                StepState::NotCalledFor | StepState::NeedNotMet => false,
                StepState::Failed => true,
                _ => unwanted || !test.others,
            };
            if counts {
                found.push(surplus(run, part));
            }
        }
        if run.applies.is_none() && run.steps.is_empty() && !test.others {
            found.push(Difference { why: run.why.clone(), ..difference(&run.playbook, "", What::Unknown) });
        }
    }
    found
}

fn is_expected(test: &Playtest, run: &Run, part: &Part) -> bool {
    test.expect.iter().any(|expected| expected.playbook == run.playbook && expected.step == part.step)
}

fn surplus(run: &Run, part: &Part) -> Difference {
    let what = if part.state == StepState::NeedsFacts { What::Unknown } else { What::Surplus };
    Difference {
        planned: Some(serde_json::json!({"action": part.action, "state": part.state, "with": part.params})),
        why: part.why.clone(),
        reads: part.reads.iter().cloned().collect(),
        ..difference(&run.playbook, &part.step, what)
    }
}

fn judge_expected(expected: &Expected, run: &Run, found: &mut Vec<Difference>) {
    let new = |what| difference(&expected.playbook, &expected.step, what);
    let Some(part) = run.steps.iter().find(|part| part.step == expected.step) else {
        let why = run.why.clone().map(|why| format!("the playbook does not apply: {why}"));
        match expected.state {
            Some(ExpectedState::Skipped) => judge_reason(expected, why.as_deref(), found),
            _ => found.push(Difference { why, reads: run.reads.iter().cloned().collect(), ..new(What::Missing) }),
        }
        return;
    };
    let reason =
        || Difference { why: part.why.clone(), reads: part.reads.iter().cloned().collect(), ..new(What::Missing) };
    if part.state == StepState::NeedsFacts {
        found.push(Difference { what: What::Unknown, ..reason() });
        return;
    }
    if !fits_state(expected.state, part.state) {
        found.push(match expected.state {
            None => Difference { planned: Some(Value::from(part.state.in_words())), ..reason() },
            Some(state) => Difference {
                what: What::State,
                expected: Some(Value::from(state_in_words(state))),
                planned: Some(Value::from(part.state.in_words())),
                ..reason()
            },
        });
        return;
    }
    if let Some(action) = expected.action.as_deref().filter(|action| *action != part.action) {
        let (expected, planned) = (Some(Value::from(action)), Some(Value::from(part.action)));
        found.push(Difference { expected, planned, ..new(What::Action) });
    }
    let planned = part.delay.as_deref().unwrap_or_default();
    if let Some(delay) = expected.delay.as_deref().filter(|delay| *delay != planned) {
        let in_words = |delay: &str| Some(Value::from(if delay.is_empty() { "at once" } else { delay }));
        found.push(Difference { expected: in_words(delay), planned: in_words(planned), ..new(What::Delay) });
    }
    judge_params(expected, part, found);
    judge_reason(expected, part.why.as_deref(), found);
}

fn judge_params(expected: &Expected, part: &Part, found: &mut Vec<Difference>) {
    let new = |name: &str| Difference {
        parameter: Some(name.to_owned()),
        ..difference(&expected.playbook, &expected.step, What::Parameter)
    };
    for (name, wanted) in &expected.with {
        let planned = part.params.as_ref().and_then(|params| params.get(name));
        if !planned.is_some_and(|planned| fits(wanted, planned, expected.exactly)) {
            found.push(Difference { expected: Some(wanted.clone()), planned: planned.cloned(), ..new(name) });
        }
    }
    let others =
        part.params.iter().flatten().filter(|(name, _)| expected.exactly && !expected.with.contains_key(*name));
    for (name, planned) in others {
        found.push(Difference { planned: Some(planned.clone()), ..new(name) });
    }
}

fn judge_reason(expected: &Expected, why: Option<&str>, found: &mut Vec<Difference>) {
    let Some(wanted) = expected.why.as_deref() else { return };
    if !why.unwrap_or_default().contains(wanted) {
        found.push(Difference {
            expected: Some(serde_json::json!({"contains": wanted})),
            planned: Some(why.map_or(Value::Null, Value::from)),
            ..difference(&expected.playbook, &expected.step, What::Why)
        });
    }
}

/// Whether a value is as the test writes it: texts whole or by their parts, tables by some of their keys or exactly.
fn fits(wanted: &Value, planned: &Value, exactly: bool) -> bool {
    match (wanted, planned) {
        (Value::Object(_), Value::String(text)) => {
            parts(wanted).is_some_and(|parts| parts.into_iter().all(|part| text.contains(part)))
        }
        (Value::Object(wanted), Value::Object(planned)) => {
            (!exactly || wanted.len() == planned.len())
                && wanted
                    .iter()
                    .all(|(key, wanted)| planned.get(key).is_some_and(|planned| fits(wanted, planned, exactly)))
        }
        (Value::Array(wanted), Value::Array(planned)) => {
            wanted.len() == planned.len()
                && wanted.iter().zip(planned).all(|(wanted, planned)| fits(wanted, planned, exactly))
        }
        (Value::Number(wanted), Value::Number(planned)) => wanted == planned || wanted.as_f64() == planned.as_f64(),
        (wanted, planned) => wanted == planned,
    }
}

fn fits_state(wanted: Option<ExpectedState>, planned: StepState) -> bool {
    use StepState as S;
    match wanted {
        None => matches!(planned, S::WouldRun | S::AwaitsApproval | S::Observed),
        Some(ExpectedState::Run) => planned == S::WouldRun,
        Some(ExpectedState::Approval) => planned == S::AwaitsApproval,
        Some(ExpectedState::Observed) => planned == S::Observed,
        Some(ExpectedState::Cancelled) => planned == S::Cancelled,
        Some(ExpectedState::Refused) => planned == S::Refused,
        Some(ExpectedState::Skipped) => matches!(planned, S::NotCalledFor | S::NeedNotMet),
        Some(ExpectedState::Failed) => planned == S::Failed,
    }
}

fn state_in_words(state: ExpectedState) -> &'static str {
    match state {
        ExpectedState::Run => StepState::WouldRun.in_words(),
        ExpectedState::Approval => StepState::AwaitsApproval.in_words(),
        ExpectedState::Observed => StepState::Observed.in_words(),
        ExpectedState::Cancelled => StepState::Cancelled.in_words(),
        ExpectedState::Refused => StepState::Refused.in_words(),
        ExpectedState::Skipped => StepState::NotCalledFor.in_words(),
        ExpectedState::Failed => StepState::Failed.in_words(),
    }
}

fn difference(playbook: &str, step: &str, what: What) -> Difference {
    Difference {
        playbook: playbook.to_owned(),
        step: step.to_owned(),
        what,
        parameter: None,
        expected: None,
        planned: None,
        why: None,
        reads: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(wanted: Value, planned: Value, [loosely, exactly]: [bool; 2]) {
        assert_eq!(
            [fits(&wanted, &planned, false), fits(&wanted, &planned, true)],
            [loosely, exactly],
            "{wanted} {planned}"
        );
    }

    #[test]
    fn texts_are_told_whole_or_by_their_parts() {
        check(json!("a b"), json!("a b"), [true, true]);
        check(json!("a"), json!("a b"), [false, false]);
        check(json!({"contains": "b"}), json!("a b"), [true, true]);
        check(json!({"contains": ["a", "b"]}), json!("a b"), [true, true]);
        check(json!({"contains": ["a", "c"]}), json!("a b"), [false, false]);
        check(json!({"contains": "1"}), json!(1), [false, false]);
    }

    #[test]
    fn tables_are_told_in_part_or_exactly_and_lists_in_order() {
        check(json!({"a": 1}), json!({"a": 1, "b": 2}), [true, false]);
        check(json!({"a": 1, "b": {"contains": "x"}}), json!({"a": 1, "b": "xy"}), [true, true]);
        check(json!([1, {"a": 1}]), json!([1, {"a": 1, "b": 2}]), [true, false]);
        check(json!([1]), json!([1, 2]), [false, false]);
        check(json!([2, 1]), json!([1, 2]), [false, false]);
        check(json!(1.0), json!(1), [true, true]);
        check(json!("1"), json!(1), [false, false]);
        check(json!(true), Value::Null, [false, false]);
    }
}
