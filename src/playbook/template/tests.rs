use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::model::event::{Event, SOURCE_OKTA};
use crate::playbook::facts::{FactValue, LinkBase, StepView};

fn facts(message: &str) -> Facts {
    let body = json!({
        "uuid": "u-1", "eventType": "user.risk.detect", "published": "2026-08-24T10:15:02.102Z",
        "displayMessage": message, "outcome": {"reason": null}, "count": 3, "list": ["a", "<b>"],
        "big": vec!["x".repeat(1_000); 200],
    });
    let event = Event::parse(SOURCE_OKTA, &body.to_string()).unwrap();
    Facts::from_event(event, &LinkBase::new("https://acme.okta.com", None))
}

#[track_caller]
fn check(text: &str, expected: &str) {
    check_escaped(Escape::Html, text, "<script>", expected);
}

#[track_caller]
fn check_escaped(escape: Escape, text: &str, message: &str, expected: &str) {
    assert_eq!(Template::compile(text, escape).unwrap().render(&facts(message)).unwrap(), expected, "{text}");
}

#[track_caller]
fn check_refused(text: &str, part: &str) {
    let error = Template::compile(text, Escape::Plain).unwrap_err();
    assert!(error.to_string().contains(part), "{text}: {error}");
}

#[test]
fn values_are_escaped_and_literals_are_not() {
    check("<b>{{ event.displayMessage }}</b>", "<b>&lt;script&gt;</b>");
    check("{{ event.list }}", "[&quot;a&quot;,&quot;&lt;b&gt;&quot;]");
    check("{{ event.list | join('<') }}", "a&lt;&lt;b&gt;");
    check("{{ '<' ~ event.displayMessage }}", "&lt;&lt;script&gt;");
    check("{{ event.count }} {{ event.count > 2 }}", "3 true");
    check("{% for x in event.list %}{{ loop.index }}{{ x }}{% endfor %}", "1a2&lt;b&gt;");
    check_escaped(Escape::SlackMrkdwn, "<{{ event.displayMessage }}>", "<!channel>", "<&lt;!channel&gt;>");
    check_escaped(Escape::Line, "{{ event.displayMessage }}", "a\r\nBcc: x", "a  Bcc: x");
}

#[test]
fn null_is_nothing_and_a_missing_field_is_an_error() {
    check("[{{ event.outcome.reason }}]", "[]");
    check("[{{ event.weather | default('-') }}]", "[-]");
    check("{% if event.weather is defined %}a{% else %}b{% endif %}\n", "b\n");
    for text in ["{{ event.weather }}", "{{ event.weather.sun }}", "{{ event.weather | upper }}"] {
        let error = Template::compile(text, Escape::Plain).unwrap().render(&facts("")).unwrap_err();
        assert!(matches!(error, TemplateError::Undefined { .. }), "{text}: {error}");
    }
}

#[test]
fn nothing_gets_around_the_formatter() {
    for text in [
        "{{ event.displayMessage | safe }}",
        "{{ event.displayMessage|safe }}",
        "{% autoescape false %}{{ event.displayMessage }}{% endautoescape %}",
        "{% filter safe %}x{% endfilter %}",
        "{% set x = event %}{{ x }}",
        "{% macro m() %}{% endmacro %}",
        "{% include 'x' %}",
        "{% raw %}{{ x }}{% endraw %}",
        "{{ range(3) }}",
        "{{ debug() }}",
        "{{ weather }}",
        "{{ event is safe }}",
    ] {
        assert!(Template::compile(text, Escape::Html).is_err(), "{text}");
    }
}

#[test]
fn a_field_that_never_exists_is_refused() {
    check_refused("{{ target.logn }}", "no field `target.logn`; did you mean `login`?");
    check_refused("{{ steps.quarantine.stat }}", "no field `steps.quarantine.stat`; did you mean `state`?");
    check_refused("{{ user.nme }}", "did you mean `name`?");
    check_refused("{{ manager.emial | default('-') }}", "did you mean `email`?");
    check_refused("{% if risk.lvl == 'HIGH' %}x{% endif %}", "no field `risk.lvl`");
    check_refused("{% for r in risk.reason %}{{ r }}{% endfor %}", "did you mean `reasons`?");
    check_refused("{% for risk in risk.reasons %}{% endfor %}{{ risk.lvl }}", "no field `risk.lvl`");
}

#[test]
fn fields_that_exist_or_may_exist_and_names_of_loops_are_taken() {
    for text in [
        "{% for risk in event.risks %}{{ risk.lvl }}{{ risk.level.x }}{{ loop.index }}{% endfor %}",
        "{{ user.profile.costCenter | default('-') }}{{ manager.profile['nick name'] }}",
        "{{ sign_in.behaviors['New Device'] }}{{ sign_in.behaviors.Velocity | default('-') }}",
        "{{ risk.reasons.0 }}{{ risk.reasons[0] }}{{ groups | first }}{{ user_risk }}",
        "{{ risk.detection | default('-') }}{% if app.name is defined %}{{ app.name }}{% endif %}",
        "{{ 'target.logn' }}target.logn {{ risk | json }}{# risk.lvl #}",
    ] {
        Template::compile(text, Escape::Plain).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

#[test]
fn a_pipe_inside_a_text_is_no_filter() {
    check("{{ event.weather | default('a|safe }} is odd') }}|safe", "a|safe }} is odd|safe");
}

#[test]
fn text_from_events_is_never_a_template() {
    let message = "{{ links.syslog }}{% if true %}x{% endif %}{# y #}";
    check_escaped(Escape::Plain, "{{ event.displayMessage }}", message, message);
}

#[test]
fn steps_must_be_named() {
    let template = Template::compile("{{ steps.tell_security.url }}{{ steps.a.state }}", Escape::Plain).unwrap();
    assert_eq!(template.steps_named().iter().collect::<Vec<_>>(), ["a", "tell_security"]);
    let mut facts = facts("");
    facts.set_step("tell-security", StepView { url: Some("https://x".to_owned()), ..StepView::default() });
    facts.set_step("a", StepView { state: "failed".to_owned(), ..StepView::default() });
    assert_eq!(template.render(&facts).unwrap(), "https://xfailed");
    check_refused("{{ steps['a'] }}", "as a whole");
    check_refused("{% for s in steps %}{% endfor %}", "as a whole");
    check_refused("{{ steps | json }}", "as a whole");
}

#[test]
fn a_missing_fact_is_named_with_its_reason() {
    let mut facts = facts("");
    facts.set(Fact::Manager, FactValue::Missing("Okta answered 403".to_owned()));
    let template = Template::compile("{{ manager.login }}", Escape::Plain).unwrap();
    assert_eq!(template.facts_named().to_string(), "manager");
    assert_eq!(template.render(&facts).unwrap_err().to_string(), "the fact `manager` is not known: Okta answered 403");
    let guarded = "{% if manager is defined %}{{ manager.login }}{% else %}nobody{% endif %}";
    assert_eq!(Template::compile(guarded, Escape::Plain).unwrap().render(&facts).unwrap(), "nobody");
}

#[test]
fn output_and_work_are_bounded() {
    for text in [
        "{{ event.big }}",
        "{% for a in event.big %}{{ a }}{% endfor %}",
        "{% for a in event.big %}{% for b in event.big %}{% for c in event.big %}{% endfor %}{% endfor %}{% endfor %}",
    ] {
        let error = Template::compile(text, Escape::Plain).unwrap().render(&facts("")).unwrap_err();
        assert!(matches!(error, TemplateError::TooLarge), "{text}: {error}");
    }
}

#[test]
fn wrong_templates_are_refused_when_compiled() {
    for text in ["{{", "{{ }}", "{% if %}", "{{ event. }}", "{{ event.x | upperr }}", &"x".repeat(MAX_TEMPLATE + 1)] {
        assert!(Template::compile(text, Escape::Plain).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn whatever_an_event_says_comes_out_as_its_escaped_self(message in "\\PC{0,200}") {
        let template = Template::compile("{{ event.displayMessage }}", Escape::Html).unwrap();
        let expected = Escape::Html.apply(&message);
        prop_assert_eq!(template.render(&facts(&message)).unwrap(), expected);
    }

    #[test]
    fn no_template_text_panics(text in "[{}%#|a-z '\"().\\[\\]-]{0,60}") {
        if let Ok(template) = Template::compile(&text, Escape::Plain) {
            let _ = template.render(&facts(""));
        }
    }
}

#[test]
fn every_filter_and_test_of_the_lists_does_its_work() {
    check("{{ event.weather | default('-') }}{{ event.weather | d('+') }}{{ event.count|d('+') }}", "-+3");
    check("{{ event.list | join(', ') }}|{{ event.list | length }}|{{ event.list | first }}", "a, &lt;b&gt;|2|a");
    check(
        "{{ event.list | last }}|{{ ['b', 'a'] | sort | join }}|{{ event.list | json }}",
        "&lt;b&gt;|ab|[&quot;a&quot;,&quot;&lt;b&gt;&quot;]",
    );
    check("{{ 'aB' | upper }}{{ 'aB' | lower }}{{ 'aB' | capitalize }}{{ ' a ' | trim }}", "ABabAba");
    check("{{ 'a-b' | replace('-', '+') }}", "a+b");
    check(
        "{{ event.count is defined }}{{ event.weather is undefined }}{{ event.weather is not defined }}",
        "truetruetrue",
    );
    check("{{ none is none }}{{ event.count is none }}{{ event.outcome.reason is none }}", "truefalsetrue");
    check("{{ event.count is number }}{{ event.uuid is string }}{{ event.list is sequence }}", "truetruetrue");
    check("{{ event.count is string }}{{ event.uuid is number }}{{ event.count is sequence }}", "falsefalsefalse");
}

#[test]
fn every_statement_of_the_list_does_its_work_however_blanks_are_trimmed() {
    check("{% if event.count == 1 %}a{% elif event.count == 3 %}b{% else %}c{% endif %}", "b");
    check("x {%- for n in event.list -%} {{ loop.index }} {%- endfor -%} y", "x12y");
    check("x {%+ if true +%} y {%endif%}", "x  y ");
    check("{{- event.count -}}", "3");
}

#[test]
fn what_is_not_on_the_lists_is_refused_by_its_name() {
    check_refused("{%set x = 1%}", "the statement `set` cannot be used in a template; statements are if, elif,");
    check_refused("{%- set x = 1 %}", "the statement `set`");
    check_refused("{%+ set x = 1 %}", "the statement `set`");
    check_refused("{% if true %}{% endif %}{% with %}", "the statement `with`");
    check_refused("{{ event.count | abs }}", "there is no filter `abs`; filters are default, d, join,");
    check_refused("{{ event.count|abs }}", "there is no filter `abs`");
    check_refused("{% if event.list | unique %}{% endif %}", "there is no filter `unique`");
    check_refused("{{ event.count | default(1) | to_json }}", "there is no filter `to_json`");
    check_refused("{{ 'é' ~ event.count | abs }}", "there is no filter `abs`");
    check_refused(r"{{ 'it\'s' | abs }}", "there is no filter `abs`");
    check_refused(r"{{ 'a\\' | abs }}", "there is no filter `abs`");
    check_refused("{{ \"it's\" | abs }}", "there is no filter `abs`");
    check_refused("{{ event.count is odd }}", "there is no test `odd`; tests are defined, undefined, none,");
    check_refused("{{ event.count is not odd }}", "there is no test `odd`");
    check_refused("{{ event.count is is_odd }}", "there is no test `is_odd`");
    check_refused("{% if event.count is even %}{% endif %}", "there is no test `even`");
    check_refused("{{ event.count }} {{ event.count is odd }}", "there is no test `odd`");
    check_refused("a text in front of it: {{ event.count | abs }}", "there is no filter `abs`");
    check_refused("{{ weather }}", "nothing is called `weather`; use one of event, risk,");
    check_refused("{{ event.count", "is not a template");
}

#[test]
fn what_only_looks_like_a_filter_or_a_test_is_text() {
    check("a | abs is odd {{ event.count }} | abs is odd", "a | abs is odd 3 | abs is odd");
    check("{{ ' | abs is odd' }}", " | abs is odd");
    check(r#"{{ "a\"| abs " ~ '{{ b }}' }}"#, "a&quot;| abs {{ b }}");
    check(r#"{{ 'a\'| abs ' }}{{ "'" }}{{ event.count }}"#, "a&#39;| abs &#39;3");
    check("{{ 'ééé %}' }}{% if '}}' == '%}' %}{% else %}é{% endif %}", "ééé %}é");
}

#[test]
fn the_longest_template_and_the_longest_text_are_taken() {
    let longest = "x".repeat(16_384);
    let template = Template::compile(&longest, Escape::Plain).unwrap();
    assert_eq!((template.text(), template.render(&facts("")).unwrap()), (longest.as_str(), longest.clone()));
    check_refused(&format!("{longest}x"), "the template has 16385 bytes, more than 16384; shorten it");

    let message = "m".repeat(4_096);
    let sixteen = "{{ event.displayMessage }}".repeat(16);
    let render = |text: &str| Template::compile(text, Escape::Plain).unwrap().render(&facts(&message));
    assert_eq!(render(&sixteen).unwrap().len(), 65_536);
    assert!(matches!(render(&format!("{sixteen}.")), Err(TemplateError::TooLarge)));
}

#[test]
fn a_template_tells_what_it_names_and_shows_itself_as_it_was_written() {
    let text = "{{ user.login }}{{ event.count }}{% if groups %}{% endif %}";
    let template = Template::compile(text, Escape::Plain).unwrap();
    assert_eq!(template.facts_named().to_string(), "user, groups");
    assert!(template.steps_named().is_empty());
    assert_eq!(format!("{template:?}"), format!("Template({text:?})"));
}

#[test]
fn an_engine_that_fails_says_why_in_one_line() {
    let error = Template::compile("{{ event.count | first }}", Escape::Plain).unwrap().render(&facts("")).unwrap_err();
    assert!(matches!(&error, TemplateError::Failed { detail } if !detail.is_empty()), "{error:?}");
    assert!(!error.to_string().contains('\n') && error.to_string().len() < 400, "{error}");
}

#[test]
fn an_answer_is_read_field_by_field_and_what_it_does_not_hold_is_an_error() {
    let mut facts = facts("");
    let body = json!({"id": 7, "links": {"self": "https://x/<7>"}, "items": [{"name": "a"}]});
    facts.set_step("ask", StepView { status: Some(201), body: Some(body), ..StepView::default() });
    facts.set_step("silent", StepView::default());
    let render = |text: &str| Template::compile(text, Escape::SlackMrkdwn).unwrap().render(&facts);
    let text = "{{ steps.ask.status }} {{ steps.ask.body.id }} {{ steps.ask.body.links.self }} {{ steps.ask.body.items[0].name }}";
    assert_eq!(render(text).unwrap(), "201 7 https://x/&lt;7&gt; a");
    assert_eq!(render("{{ steps.silent.body.id | default('-') }}{{ steps.silent.status }}").unwrap(), "-");
    for missing in ["{{ steps.ask.body.number }}", "{{ steps.silent.body.id }}", "{{ steps.silent.body.a.b }}"] {
        assert!(matches!(render(missing), Err(TemplateError::Undefined { .. })), "{missing}");
    }
}

#[test]
fn a_value_of_a_path_is_one_segment_and_never_empty() {
    let mut facts = facts("");
    facts.set_step("ask", StepView { id: Some("a/../b?c#d é".to_owned()), ..StepView::default() });
    let render = |text: &str| Template::compile(text, Escape::PathSegment).unwrap().render(&facts);
    assert_eq!(render("/x/{{ steps.ask.id }}/y").unwrap(), "/x/a%2F..%2Fb%3Fc%23d%20%C3%A9/y");
    for empty in ["/x/{{ steps.ask.url }}", "/x/{{ '' }}", "/x/{{ '\u{200b}' }}"] {
        assert!(render(empty).is_err(), "{empty}");
    }
}
