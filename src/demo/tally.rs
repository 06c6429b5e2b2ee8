//! What the script calls for, held against what reached the services. Pure.

use serde_json::Value;

use super::org::Effect;

/// One change that the script calls for, exactly once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    /// The kind of the effect.
    pub(super) kind: &'static str,
    /// What is changed; `None` where the service gives the name, as with incidents.
    pub(super) target: Option<String>,
    /// Words that what was sent contains, all of them.
    pub(super) words: Vec<String>,
}

/// An event of the script, as it stands now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome<'a> {
    /// Whether it ended as it may: decided, skipped or superseded.
    pub(super) ended: bool,
    /// What it calls for.
    pub(super) expected: &'a [Expected],
}

/// How expectation and world differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Changes that happened.
    pub(super) effects: usize,
    /// Those of them that the script does not call for, or not again, by their place.
    pub(super) surplus: Vec<usize>,
    /// Events that did not end or that miss a change, by their place.
    pub(super) lost: Vec<usize>,
}

impl Expected {
    fn is_met_by(&self, effect: &Effect) -> bool {
        self.kind == effect.kind
            && self.target.as_ref().is_none_or(|target| *target == effect.target)
            && self.words.iter().all(|word| holds(&effect.body, word))
    }
}

fn holds(body: &Value, word: &str) -> bool {
    match body {
        Value::String(text) => text.contains(word),
        Value::Array(list) => list.iter().any(|item| holds(item, word)),
        Value::Object(object) => object.values().any(|item| holds(item, word)),
        _ => false,
    }
}

/// Gives every effect to one expectation that it meets. An effect that changed nothing, because it was so already, is
/// none.
pub(super) fn count(events: &[Outcome<'_>], effects: &[Effect]) -> Tally {
    let mut open: Vec<(usize, &Expected)> =
        (0..).zip(events).flat_map(|(place, event)| event.expected.iter().map(move |one| (place, one))).collect();
    let mut tally = Tally::default();
    for (place, effect) in effects.iter().enumerate().filter(|(_, effect)| effect.changed) {
        tally.effects += 1;
        match open.iter().position(|(_, expected)| expected.is_met_by(effect)) {
            Some(met) => drop(open.swap_remove(met)),
            None => tally.surplus.push(place),
        }
    }
    let is_lost = |place: usize, event: &Outcome<'_>| !event.ended || open.iter().any(|(missing, _)| *missing == place);
    tally.lost = (0..).zip(events).filter(|(place, event)| is_lost(*place, event)).map(|(place, _)| place).collect();
    tally
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::org::Service;
    use super::*;

    fn effect(kind: &'static str, target: &str, text: &str) -> Effect {
        let body = json!({"deep": [{"text": text}]});
        Effect { at_ms: 0, service: Service::Okta, kind, target: target.to_owned(), key: None, changed: true, body }
    }

    fn expected(kind: &'static str, target: Option<&str>, words: &[&str]) -> Expected {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Expected { kind, target: target.map(str::to_owned), words }
    }

    /// One event that calls for a membership and a message, and one that calls for nothing.
    #[track_caller]
    fn check(effects: &[Effect], ended: [bool; 2], surplus: &[usize], lost: &[usize]) {
        let wanted = [expected("group.add", Some("g/u"), &[]), expected("slack.post", None, &["Ann", "HIGH"])];
        let events = [Outcome { ended: ended[0], expected: &wanted }, Outcome { ended: ended[1], expected: &[] }];
        let tally = count(&events, effects);
        assert_eq!((tally.surplus.as_slice(), tally.lost.as_slice()), (surplus, lost));
    }

    #[test]
    fn what_happened_as_called_for_is_neither_doubled_nor_lost() {
        check(&[effect("slack.post", "#s", "Ann is HIGH"), effect("group.add", "g/u", "")], [true; 2], &[], &[]);
    }

    #[test]
    fn an_effect_that_happened_twice_is_counted() {
        let told = effect("slack.post", "#s", "Ann is HIGH");
        check(&[told.clone(), effect("group.add", "g/u", ""), told], [true; 2], &[2], &[]);
    }

    #[test]
    fn an_effect_that_nothing_calls_for_is_counted() {
        let effects = [
            effect("slack.post", "#s", "Ann is HIGH"),
            effect("group.add", "g/u", ""),
            effect("group.remove", "g/u", ""),
        ];
        check(&effects, [true; 2], &[2], &[]);
    }

    #[test]
    fn an_effect_that_changed_nothing_is_not_counted() {
        let again = Effect { changed: false, ..effect("group.add", "g/u", "") };
        check(&[effect("slack.post", "#s", "Ann is HIGH"), effect("group.add", "g/u", ""), again], [true; 2], &[], &[]);
    }

    #[test]
    fn an_event_without_its_effect_is_lost() {
        check(&[effect("group.add", "g/u", "")], [true; 2], &[], &[0]);
    }

    #[test]
    fn an_effect_for_somebody_else_does_not_count_as_his() {
        let effects = [effect("group.add", "g/other", ""), effect("slack.post", "#s", "Ben is HIGH")];
        check(&effects, [true; 2], &[0, 1], &[0]);
    }

    #[test]
    fn an_event_that_did_not_end_is_lost() {
        check(&[effect("slack.post", "#s", "Ann is HIGH"), effect("group.add", "g/u", "")], [true, false], &[], &[1]);
    }
}
