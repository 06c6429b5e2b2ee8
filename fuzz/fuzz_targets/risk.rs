//! Okta's risk strings: `{previousLevel=LOW, level=HIGH, reasons=a, b}`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use okta_responder::model::risk::{MAX_FIELD, MAX_REASONS, Risk, RiskLevel};

fuzz_target!(|text: &str| {
    let risk = Risk::parse(text);
    assert!(risk.reasons.len() <= MAX_REASONS);
    assert!(risk.reasons.iter().all(|reason| reason.chars().count() <= MAX_FIELD));
    // A level is never made up: the word has to be there.
    for level in [risk.level, risk.previous_level] {
        if level != RiskLevel::Unknown {
            assert!(text.to_uppercase().contains(level.as_str()), "{level:?} out of {text:?}");
        }
    }
});
