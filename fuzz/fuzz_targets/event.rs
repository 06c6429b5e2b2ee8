//! A record of the log, from its text to the final parameters of every step of the example's playbooks.
#![no_main]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use okta_responder::config::load::{Loaded, load};
use okta_responder::engine::intake::sort_page;
use okta_responder::model::event::{Event, MAX_EVENT_BYTES, SOURCE_OKTA};
use okta_responder::model::risk::{MAX_FIELD, MAX_REASONS, Risk};
use okta_responder::playbook::plan::{self, Prepared};
use okta_responder::playbook::{Fact, FactValue, Facts, LinkBase};

static EXAMPLE: LazyLock<Loaded> = LazyLock::new(|| {
    let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../config.example.toml"));
    load(file).unwrap_or_else(|problems| panic!("{}", problems[0]))
});

/// The most bytes of the parameters of one step: a few texts of 64 KiB.
const MAX_PARAMS: usize = 1024 * 1024;

fuzz_target!(|text: &str| {
    let playbooks = &EXAMPLE.playbooks;
    let wanted: BTreeSet<String> = playbooks.iter().flat_map(|playbook| playbook.event_types()).map(str::to_owned).collect();
    if let Ok(intake) = sort_page(format!("[{text}]").as_bytes(), &wanted) {
        let sorted = intake.events.len() + intake.quarantined.len() + usize::try_from(intake.unwanted).unwrap();
        assert_eq!(sorted, intake.records, "every record is somewhere");
    }
    let Ok(event) = Event::parse(SOURCE_OKTA, text) else { return };
    assert!(text.len() <= MAX_EVENT_BYTES);
    let risk = Risk::of(&event);
    assert!(risk.reasons.len() <= MAX_REASONS && risk.reasons.iter().all(|reason| reason.chars().count() <= MAX_FIELD));

    // A directory as hostile as the event: facts of any shape.
    let body = serde_json::from_str(text).unwrap_or_default();
    for known in [false, true] {
        let mut facts = Facts::from_event(event.clone(), &LinkBase::new("https://example.okta.com", None));
        for fact in Fact::ALL {
            let value = if known { FactValue::Known(serde_json::Value::clone(&body)) } else { FactValue::Missing(text.to_owned()) };
            facts.set(fact, value);
        }
        for playbook in playbooks {
            let _ = plan::applies(playbook, &facts);
            for step in &playbook.steps {
                if let Prepared::Ready { params, .. } = plan::prepare(playbook, step, &facts, &event) {
                    assert!(params.to_string().len() <= MAX_PARAMS);
                }
            }
        }
    }
});
