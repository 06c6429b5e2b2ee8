//! Templates: any template over a plain event, and templates of ours over any event. Whatever comes out, nothing in it is
//! live at its destination but what the template itself wrote.
#![no_main]

use libfuzzer_sys::fuzz_target;
use okta_responder::model::escape::{Escape, is_hidden};
use okta_responder::model::event::{Event, SOURCE_OKTA};
use okta_responder::playbook::template::MAX_OUTPUT;
use okta_responder::playbook::{Facts, LinkBase, Template};
use serde_json::json;

/// Every way for a value to get past the formatter that anybody has thought of.
const TEMPLATES: [&str; 8] = [
    "{{ event.displayMessage }}",
    "{{ event.displayMessage | upper | lower | capitalize | trim }}",
    "{{ event.displayMessage | replace('a', event.displayMessage) }}",
    "{{ event.list | join(event.displayMessage) }}",
    "{{ event | json }}",
    "{{ event.list }}",
    "{% for word in event.list %}{{ word }}{{ loop.index }}{% endfor %}",
    "{{ event.missing | default(event.displayMessage) }}",
];

fn facts(words: &str) -> Facts {
    let body = json!({
        "uuid": "u", "eventType": "user.session.start", "published": "2026-08-24T10:15:02.102Z",
        "displayMessage": words, "list": [words, {words: words}, null, 1],
    });
    let event = Event::parse(SOURCE_OKTA, &body.to_string()).unwrap();
    Facts::from_event(event, &LinkBase::new("https://example.okta.com", None))
}

fuzz_target!(|text: &str| {
    if text.len() > 4096 {
        return;
    }
    let hostile = facts(text);
    for escape in [Escape::Plain, Escape::SlackMrkdwn, Escape::Html, Escape::Line] {
        for template in TEMPLATES {
            let Ok(out) = Template::compile(template, escape).unwrap().render(&hostile) else { continue };
            let clean = |c: char| !c.is_control() && !is_hidden(c) && !matches!(c, '\u{2028}' | '\u{2029}');
            assert!(out.len() <= MAX_OUTPUT && out.chars().all(clean), "{escape:?} {template}: {out:?}");
            if matches!(escape, Escape::SlackMrkdwn | Escape::Html) {
                assert!(!out.contains(['<', '>']), "{escape:?} {template}: {out:?}");
                let bare = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"].iter().fold(out.clone(), |out, entity| out.replace(entity, ""));
                assert!(!bare.contains('&'), "{escape:?} {template}: {out:?}");
            }
            if escape == Escape::Html {
                assert!(!out.contains(['"', '\'']), "{escape:?} {template}: {out:?}");
            }
        }
        if let Ok(template) = Template::compile(text, escape)
            && let Ok(out) = template.render(&facts("Ann"))
        {
            assert!(out.len() <= MAX_OUTPUT);
        }
    }
});
