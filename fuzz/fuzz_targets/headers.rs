//! Headers of an answer: `Link`, and the rate limit.
#![no_main]

use std::time::Duration;

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use okta_responder::http::retry_after;
use okta_responder::okta::page::{check_origin, next_link};
use okta_responder::okta::rate::{RateHeaders, wait_after_429};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

const NAMES: [&str; 5] = ["x-rate-limit-limit", "x-rate-limit-remaining", "x-rate-limit-reset", "retry-after", "date"];

fuzz_target!(|text: &str| {
    let org = Url::parse("https://example.okta.com/").unwrap();
    if let Some(next) = next_link(text.lines()) {
        assert!(text.contains(next) && !next.contains('>'));
    }
    for candidate in next_link(text.lines()).into_iter().chain([text]) {
        if let Ok(url) = check_origin(candidate, &org) {
            assert_eq!(url.origin(), org.origin());
            assert!(url.username().is_empty() && url.password().is_none());
        }
    }

    let mut headers = HeaderMap::new();
    for (name, value) in NAMES.iter().zip(text.lines()) {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    let rate = RateHeaders::parse(&headers);
    for date in [None, Some(Timestamp::UNIX_EPOCH), Some(Timestamp::MAX), Some(Timestamp::MIN)] {
        let _ = wait_after_429(rate.as_ref(), date);
    }
    if let Some(pause) = retry_after(&headers) {
        assert!((Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&pause));
    }
});
