use super::*;
use crate::model::event::SOURCE_OKTA;

fn facts(mut body: Value) -> Facts {
    let defaults = json!({"uuid": "u-1", "eventType": "user.session.start", "published": "2026-08-24T10:15:02.102Z"});
    for (key, value) in defaults.as_object().unwrap() {
        body.as_object_mut().unwrap().entry(key).or_insert(value.clone());
    }
    let event = Event::parse(SOURCE_OKTA, &body.to_string()).unwrap();
    Facts::from_event(event, &LinkBase::new("https://acme.okta.com/", None))
}

#[track_caller]
fn check(facts: &Facts, pointer: &str, expected: Value) {
    let (name, rest) = pointer.split_once('/').map_or((pointer, String::new()), |(n, r)| (n, format!("/{r}")));
    assert_eq!(facts.value(name).unwrap().pointer(&rest), Some(&expected), "{pointer}");
}

#[test]
fn tokens_in_debug_data_do_not_get_in() {
    let facts = facts(json!({"debugContext": {"debugData": {
        "url": "/login/sso?token=abc&SAMLRequest=x",
        "requestUri": "/oauth2/v1/authorize?code=abc",
        "redirectUri": "https://app.example.com/cb#id_token=abc",
        "samlRequest": "abc", "accessToken": {"value": "abc"},
        "seen": ["https://x.example.com/?t=abc"],
        "originalPrincipal": {"id": "00u1", "sessionToken": "abc"},
        "risk": "{level=LOW, reasons=why?}",
    }}}));
    let event = facts.value("event").unwrap();
    assert!(!event.to_string().contains("abc"), "{event}");
    let part = facts.event_part(&["debugContext", "uuid", "nothing"].map(str::to_owned).into()).unwrap();
    assert_eq!(part, json!({"debugContext": event["debugContext"], "uuid": "u-1"}));
    check(&facts, "event/debugContext/debugData/url", json!("/login/sso"));
    check(&facts, "event/debugContext/debugData/originalPrincipal/id", json!("00u1"));
    check(&facts, "event/debugContext/debugData/risk", json!("{level=LOW, reasons=why?}"));
}

#[test]
fn a_sign_in_is_told_in_plain_words() {
    let facts = facts(json!({
        "actor": {"id": "00u1", "type": "User", "alternateId": "a@b.c", "displayName": "A"},
        "client": {"ipAddress": "203.0.113.7", "device": "unknown", "userAgent": {"rawUserAgent": "curl/8"},
            "geographicalContext": {"city": "Graz", "country": "Austria"}},
        "securityContext": {"isProxy": true},
        "authenticationContext": {"credentialType": "PASSWORD"},
        "debugContext": {"debugData": {"factor": "SIGNED_NONCE", "threatSuspected": "false",
            "behaviors": "{New Device=POSITIVE, New Geo-Location=NEGATIVE}"}},
        "target": [{"id": "lae1", "type": "AuthenticatorEnrollment", "displayName": "Okta Verify"}],
    }));
    check(&facts, "sign_in/methods", json!(["PASSWORD", "SIGNED_NONCE", "Okta Verify"]));
    check(&facts, "sign_in/ip", json!("203.0.113.7"));
    check(&facts, "sign_in/city", json!("Graz"));
    check(&facts, "sign_in/device", json!(null));
    check(&facts, "sign_in/proxy", json!(true));
    check(&facts, "sign_in/threat_suspected", json!(false));
    check(&facts, "sign_in/behaviors", json!({"New Device": "POSITIVE", "New Geo-Location": "NEGATIVE"}));
    check(&facts, "target", json!({"id": "00u1", "login": "a@b.c", "name": "A"}));
}

#[test]
fn a_record_that_tells_nothing_has_nulls_not_gaps() {
    let facts = facts(json!({"eventType": "user.risk.detect", "client": null, "target": null}));
    check(&facts, "target", json!(null));
    check(&facts, "app", json!(null));
    check(&facts, "sign_in/ip", json!(null));
    check(&facts, "sign_in/behaviors", json!({}));
    check(&facts, "risk/level", json!("UNKNOWN"));
    check(&facts, "links/user", json!(null));
    check(
        &facts,
        "links/syslog",
        json!("https://acme-admin.okta.com/report/system_log_2?search=uuid%20eq%20%22u-1%22"),
    );
}

/// The names of the fields of `value` have to be those of the shape, and their values fit theirs.
#[track_caller]
fn check_shape(shape: Shape, value: &Value) {
    match shape {
        Shape::Open => {}
        Shape::Text => assert!(value.is_string() || value.is_null(), "{value}"),
        Shape::Number => assert!(value.is_number() || value.is_null(), "{value}"),
        Shape::Flag => assert!(value.is_boolean() || value.is_null(), "{value}"),
        Shape::Level => assert!(["LOW", "MEDIUM", "HIGH", "UNKNOWN"].map(Value::from).contains(value), "{value}"),
        Shape::List => assert!(value.as_array().unwrap().iter().all(Value::is_string), "{value}"),
        Shape::Record(fields) => {
            let object = value.as_object().unwrap();
            assert_eq!(object.len(), fields.len(), "{value}");
            fields.iter().for_each(|(name, shape)| check_shape(*shape, &object[*name]));
        }
        Shape::Each(fields) => {
            value.as_object().unwrap().values().for_each(|item| check_shape(Shape::Record(fields), item));
        }
    }
}

#[test]
fn what_is_built_has_the_fields_of_the_table() {
    let full = json!({
        "actor": {"id": "00u1", "type": "User", "alternateId": "a@b.c", "displayName": "A"},
        "client": {"ipAddress": "203.0.113.7", "userAgent": {"browser": "CHROME"}},
        "securityContext": {"isProxy": true, "risk": {"level": "HIGH", "reasons": ["a"]}},
        "debugContext": {"debugData": {"threatSuspected": "false", "behaviors": "{Velocity=POSITIVE}"}},
        "target": [{"id": "0oa1", "type": "AppInstance", "displayName": "Payroll"}],
    });
    let mut full = facts(full);
    full.set_step("tell", StepView { url: Some("https://x".to_owned()), ..StepView::default() });
    for name in ["event", "risk", "target", "app", "sign_in", "links", STEPS] {
        check_shape(Facts::shape(name).unwrap(), &full.value(name).unwrap());
    }
    let bare = facts(json!({"eventType": "user.risk.detect"}));
    for name in ["event", "risk", "sign_in", "links"] {
        check_shape(Facts::shape(name).unwrap(), &bare.value(name).unwrap());
    }
    let named = |fact: &Fact| *fact == Fact::Past || Facts::shape(fact.as_str()).is_some();
    assert!(Fact::ALL.iter().all(named));
}

#[test]
fn an_id_cannot_break_out_of_its_link() {
    let facts = facts(json!({
        "eventType": "user.risk.detect",
        "target": [{"id": "00u1\" or \"\"&x=#y", "type": "User"}],
    }));
    check(
        &facts,
        "links/syslog",
        json!(
            "https://acme-admin.okta.com/report/system_log_2?search=target.id%20eq%20%2200u1%5C%22%20or%20%5C%22%5C%22%26x%3D%23y%22"
        ),
    );
}

#[test]
fn the_admin_console_is_derived_for_hosts_of_okta_only() {
    for (org, admin) in [
        ("https://acme.okta.com", "https://acme-admin.okta.com"),
        ("https://acme.oktapreview.com/", "https://acme-admin.oktapreview.com"),
        ("https://login.example.com", "https://login.example.com"),
        ("https://acme-admin.okta.com", "https://acme-admin.okta.com"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
    ] {
        assert_eq!(LinkBase::new(org, None).admin_url, admin);
    }
    assert_eq!(LinkBase::new("https://a.okta.com", Some("https://b/")).admin_url, "https://b");
}

#[test]
fn every_size_is_bounded() {
    let mut deep = json!("bottom");
    for _ in 0..60 {
        deep = json!([deep]);
    }
    let facts = facts(json!({"long": "é".repeat(10_000), "list": vec![0; 1_000], "deep": deep}));
    let event = facts.value("event").unwrap();
    assert_eq!(event["long"].as_str().unwrap().len(), MAX_STRING);
    assert_eq!(event["list"].as_array().unwrap().len(), MAX_ITEMS);
    assert!(!event.to_string().contains("bottom"));
}

#[test]
fn fetched_facts_survive_the_store() {
    let mut facts = facts(json!({}));
    facts.set(Fact::User, FactValue::Known(json!({"login": "a@b.c"})));
    facts.set(Fact::Manager, FactValue::Missing("no answer".to_owned()));
    let mut restored = Facts::default();
    restored.restore_fetched(&facts.fetched_json()).unwrap();
    assert_eq!(restored.get(Fact::User), facts.get(Fact::User));
    assert_eq!(restored.reason_missing(Fact::Manager), Some("no answer"));
    assert_eq!(restored.not_fetched(Fact::ALL.into_iter().collect()).to_string(), "groups, user_risk, past");
    assert!(restored.restore_fetched(&json!({"weather": {"known": 1}})).is_err());
}

#[test]
fn every_field_of_a_sign_in_has_its_place() {
    let facts = facts(json!({
        "client": {
            "ipAddress": "203.0.113.7", "device": "Computer",
            "userAgent": {"rawUserAgent": "Mozilla/5.0", "browser": "FIREFOX", "os": "Linux"},
            "geographicalContext": {"city": "Graz", "state": "Styria", "country": "Austria"},
        },
        "securityContext": {"isProxy": false, "isp": "example isp"},
        "authenticationContext": {"credentialType": "PASSWORD"},
        "debugContext": {"debugData": {"factor": "PASSWORD", "threatSuspected": "TRUE", "behaviors": {"Velocity": "POSITIVE"}}},
        "target": [
            {"id": "0oa1", "type": "AppInstance", "displayName": "no method"},
            {"id": "lae1", "type": "AuthenticatorEnrollment", "displayName": "unknown"},
            {"id": "lae2", "type": "AuthenticatorEnrollment", "displayName": "Okta Verify"},
        ],
    }));
    check(
        &facts,
        "sign_in",
        json!({
            "methods": ["PASSWORD", "Okta Verify"], "ip": "203.0.113.7", "user_agent": "Mozilla/5.0",
            "browser": "FIREFOX", "os": "Linux", "device": "Computer", "city": "Graz", "state": "Styria",
            "country": "Austria", "proxy": false, "isp": "example isp", "threat_suspected": true,
            "behaviors": {"Velocity": "POSITIVE"}, "behaviors_text": null,
        }),
    );
}

#[test]
fn oktas_words_for_not_known_are_null() {
    for word in ["", "null", "NULL", "unknown", "UNKNOWN"] {
        let facts = facts(json!({"client": {"ipAddress": word}, "debugContext": {"debugData": {"factor": word}}}));
        check(&facts, "sign_in/ip", json!(null));
        check(&facts, "sign_in/methods", json!([]));
    }
}

#[test]
fn a_flag_may_be_a_text_and_anything_else_is_not_known() {
    for (told, flag) in [
        (json!(true), json!(true)),
        (json!(false), json!(false)),
        (json!("True"), json!(true)),
        (json!("FALSE"), json!(false)),
        (json!("maybe"), json!(null)),
        (json!(1), json!(null)),
    ] {
        let facts = facts(json!({"debugContext": {"debugData": {"threatSuspected": told}}}));
        check(&facts, "sign_in/threat_suspected", flag);
    }
}

#[test]
fn behaviors_are_read_with_and_without_braces() {
    for text in ["{ New Device = POSITIVE ,Velocity=NEGATIVE, odd}", "New Device=POSITIVE, Velocity=NEGATIVE"] {
        let facts = facts(json!({"debugContext": {"debugData": {"behaviors": text}}}));
        check(&facts, "sign_in/behaviors", json!({"New Device": "POSITIVE", "Velocity": "NEGATIVE"}));
        check(&facts, "sign_in/behaviors_text", json!(text));
    }
}

#[test]
fn links_lead_people_to_the_org_the_user_and_the_app() {
    let facts = facts(json!({
        "eventType": "user.risk.detect",
        "target": [
            {"id": "00u-._~1/é", "type": "User"},
            {"id": "0oa1", "type": "AppInstance", "alternateId": "Payroll"},
        ],
    }));
    let search = "https://acme-admin.okta.com/report/system_log_2?search=";
    check(
        &facts,
        "links",
        json!({
            "org": "https://acme.okta.com",
            "syslog": format!("{search}target.id%20eq%20%2200u-._~1%2F%C3%A9%22"),
            "event": format!("{search}uuid%20eq%20%22u-1%22"),
            "user": "https://acme-admin.okta.com/admin/user/profile/view/00u-._~1%2F%C3%A9",
            "app": format!("{search}target.id%20eq%20%220oa1%22"),
        }),
    );
    check(&facts, "app", json!({"id": "0oa1", "name": "Payroll"}));
}

#[test]
fn only_hosts_one_label_below_oktas_domains_have_a_derived_console() {
    for (org, admin) in [
        ("https://acme.okta-emea.com", "https://acme-admin.okta-emea.com"),
        ("https://acme.okta-gov.com", "https://acme-admin.okta-gov.com"),
        ("https://acme.okta.mil", "https://acme-admin.okta.mil"),
        ("https://acme.okta.com:8443", "https://acme-admin.okta.com:8443"),
        ("https://a.b.okta.com", "https://a.b.okta.com"),
        ("https://okta.com", "https://okta.com"),
        ("https://acme.okta.com.example.net", "https://acme.okta.com.example.net"),
        ("no url", "no url"),
    ] {
        assert_eq!(LinkBase::new(org, None).admin_url, admin);
    }
}

#[test]
fn every_word_that_names_a_secret_hides_its_value() {
    for key in [
        "token",
        "accessTOKEN",
        "client_secret",
        "oldPassword",
        "SAMLResponse",
        "clientAssertion",
        "cookies",
        "Authorization",
    ] {
        let facts = facts(json!({"debugContext": {"debugData": {"deep": [{key: {"value": "abc"}}]}}}));
        check(&facts, &format!("event/debugContext/debugData/deep/0/{key}"), json!("[redacted]"));
    }
}

#[test]
fn whatever_looks_like_an_address_loses_its_query_and_fragment() {
    for (key, text, kept) in [
        ("requestUrl", "login?t=abc", "login"),
        ("requestURI", "login#t=abc", "login"),
        ("path", "  /login?t=abc", "  /login"),
        ("where", "see https://x.example.com/#abc?abc", "see https://x.example.com/"),
        ("risk", "why? #abc", "why? #abc"),
    ] {
        let facts = facts(json!({"debugContext": {"debugData": {key: text}}, "uncovered": "/login?t=abc"}));
        check(&facts, &format!("event/debugContext/debugData/{key}"), json!(kept));
        check(&facts, "event/uncovered", json!("/login?t=abc"));
    }
    let listed = facts(json!({"debugContext": {"debugData": {"seen": [["/a?abc", "b?c"]]}}}));
    check(&listed, "event/debugContext/debugData/seen", json!([["/a", "b?c"]]));
}

/// What the facts keep of a value that was fetched.
fn kept(value: Value) -> Value {
    let mut facts = Facts::default();
    facts.set(Fact::Groups, FactValue::Known(value));
    facts.value("groups").unwrap()
}

#[test]
fn what_fits_the_bounds_is_kept_whole_and_what_does_not_is_cut_at_them() {
    let nested = |levels: usize, wrap: fn(Value) -> Value| (0..levels).fold(json!("bottom"), |inner, _| wrap(inner));
    for wrap in [|inner| json!([inner]), |inner| json!({ "a": inner })] {
        assert_eq!(kept(nested(20, wrap)), nested(20, wrap));
        assert!(!kept(nested(21, wrap)).to_string().contains("bottom"));
    }
    let object = |keys: usize| Value::from_iter((0..keys).map(|n| (format!("k{n:03}"), json!("x".repeat(4_097)))));
    for (keys, left) in [(200, 200), (201, 200)] {
        let kept = kept(object(keys));
        let kept = kept.as_object().unwrap();
        assert_eq!(kept.len(), left);
        assert!(kept.values().all(|text| text.as_str().unwrap().len() == 4_096), "what is kept is bounded too");
    }
    for (length, left) in [(256, 256), (257, 256), (300, 256)] {
        let kept = kept(json!({"k".repeat(length): "x".repeat(4_097)}));
        assert_eq!(kept, json!({"k".repeat(left): "x".repeat(4_096)}));
    }
    assert_eq!(kept(json!(["x".repeat(4_097)])), json!(["x".repeat(4_096)]));
    assert_eq!(kept(json!(vec![0; 200])), json!(vec![0; 200]));
}

#[test]
fn what_steps_and_services_say_is_cut_too() {
    let long = || Some("é".repeat(5_000));
    let mut facts = Facts::default();
    facts.set_step(
        "a-1",
        StepView {
            state: "failed".to_owned(),
            url: long(),
            id: long(),
            number: long(),
            note: long(),
            error: long(),
            status: Some(200),
            body: Some(json!({"text": long()})),
        },
    );
    let cut = "é".repeat(2_048);
    check(
        &facts,
        "steps",
        json!({"a_1": {
            "state": "failed", "url": cut, "id": cut, "number": cut, "note": cut, "error": cut, "status": 200,
            "body": {"text": cut},
        }}),
    );
    facts.set(Fact::User, FactValue::Missing("é".repeat(5_000)));
    assert_eq!(facts.reason_missing(Fact::User), Some("é".repeat(250).as_str()));
    assert!(facts.value("user").is_none() && facts.value("weather").is_none() && facts.value("event").is_none());
}

#[test]
fn only_what_is_missing_has_a_reason() {
    let mut facts = Facts::default();
    assert_eq!((facts.get(Fact::Manager), facts.reason_missing(Fact::Manager)), (None, None));
    facts.set(Fact::Manager, FactValue::Known(json!(null)));
    assert_eq!(facts.get(Fact::Manager), Some(&FactValue::Known(json!(null))));
    assert_eq!((facts.value("manager"), facts.reason_missing(Fact::Manager)), (Some(json!(null)), None));
}

#[test]
fn a_fact_is_one_word_everywhere() {
    for fact in Fact::ALL {
        assert_eq!(Fact::parse(fact.as_str()), Some(fact));
        assert_eq!(fact.to_string(), fact.as_str());
        assert_eq!(serde_json::to_value(fact).unwrap(), fact.as_str());
    }
    assert_eq!(Fact::parse("event"), None);
}

#[test]
fn a_set_of_facts_holds_each_once_in_a_fixed_order() {
    let set = |facts: &[Fact]| facts.iter().copied().collect::<FactSet>();
    let twice = set(&[Fact::Groups, Fact::User, Fact::Groups]);
    assert_eq!(twice.iter().collect::<Vec<_>>(), [Fact::User, Fact::Groups]);
    assert_eq!(twice.union(set(&[Fact::User, Fact::UserRisk])).to_string(), "user, groups, user_risk");
    assert!(twice.contains(Fact::User) && !twice.contains(Fact::Manager));
    assert!(!twice.is_empty() && FactSet::EMPTY.is_empty() && FactSet::default().is_empty());
    assert_eq!(FactSet::EMPTY.to_string(), "");
}

#[test]
fn a_step_is_called_by_an_identifier() {
    assert_eq!(step_identifier("tell-Security_2 é"), "tell_Security_2__");
}
