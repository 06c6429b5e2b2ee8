use super::*;
use crate::connectors::{Effect, FromEvent, Inverse, Service};
use crate::model::action::InDoubt;
use crate::model::escape::Escape;

/// Adds a user to a group: changes access, takes the user from the event.
pub(in crate::playbook) static ADD_USER: ActionKind = ActionKind {
    name: "okta.group.add_user",
    summary: "adds the user to a group",
    service: Service::Okta,
    effect: Effect::SetLike,
    changes_access: true,
    resets_risk: false,
    rights: &[],
    from_event: &[("user", FromEvent::UserId)],
    check: |params| known_keys(params, &["user", "group"]),
    schema: |_| true.into(),
    escape: |_| Escape::Plain,
    lane: |params| Some(format!("{}/{}", params["user"].as_str()?, params["group"].as_str()?)),
    inverse: |_| Inverse::impossible(""),
};

/// Posts a message.
pub(in crate::playbook) static POST: ActionKind = ActionKind {
    name: "slack.message.post",
    summary: "posts a message",
    service: Service::Slack,
    effect: Effect::Message,
    changes_access: false,
    resets_risk: false,
    rights: &[],
    from_event: &[],
    check: |params| known_keys(params, &["channel", "text", "fields"]),
    schema: |_| true.into(),
    escape: |name| if name == "text" { Escape::SlackMrkdwn } else { Escape::Plain },
    lane: |_| None,
    inverse: |_| Inverse::impossible(""),
};

fn known_keys(params: &Value, keys: &[&str]) -> Result<(), String> {
    let params = params.as_object().ok_or("no table")?;
    match params.keys().find(|key| !keys.contains(&key.as_str())) {
        Some(key) => Err(format!("unknown parameter `{key}`")),
        None => Ok(()),
    }
}

pub(in crate::playbook) fn compile(toml: &str) -> Result<Playbook, Vec<Problem>> {
    Playbook::compile(&toml::from_str(toml).unwrap(), &[&ADD_USER, &POST])
}

/// The same with every action that there is.
fn compile_all(toml: &str) -> Result<Playbook, Vec<Problem>> {
    Playbook::compile(&toml::from_str(toml).unwrap(), &crate::connectors::catalogue())
}

const HEAD: &str = "name = \"p\"\non = [\"user.risk.detect\"]\n";

#[track_caller]
fn check(steps: &str, step: Option<&str>, field: &str, message: &str, remedy: &str) {
    let problems = compile(&format!("{HEAD}{steps}")).unwrap_err();
    let fits = |problem: &Problem| {
        problem.step.as_deref() == step
            && problem.field == field
            && problem.message.contains(message)
            && problem.remedy.contains(remedy)
    };
    assert!(problems.iter().any(fits), "{problems:#?}");
    assert_eq!(problems.len(), 1, "{problems:#?}");
}

#[test]
fn a_whole_playbook_compiles() {
    let playbook = compile(
        r#"
        name = "user-risk-changed"
        on = ["user.risk.detect", "user.risk.change"]
        [[step]]
        name = "quarantine"
        when = 'risk.level == "HIGH"'
        action = "okta.group.add_user"
        with = { group = "High Risk Users" }
        [[step]]
        name = "tell-security"
        after = ["quarantine"]
        needs = ["quarantine"]
        wait = "30s"
        action = "slack.message.post"
        with = { channel = "security", text = "{{ steps.quarantine.state }}", fields = [{ title = "{{ user.login }}" }] }
        "#,
    )
    .unwrap();
    assert!(playbook.wants("user.risk.change") && !playbook.wants("user.risk"));
    let tell = playbook.step("tell-security").unwrap();
    assert_eq!(tell.after, ["quarantine"]);
    assert_eq!(tell.in_doubt, InDoubt::Skip);
    assert_eq!(playbook.step("quarantine").unwrap().in_doubt, InDoubt::Ask);
    assert_eq!(tell.with.facts_named().to_string(), "user");
}

#[test]
fn a_slip_in_an_action_is_answered_with_the_right_name() {
    for name in ["slack.mesage.post", "slack.message.psot", "slack.messsage.post", "Slack.Message.Post"] {
        let steps = format!("[[step]]\nname = \"a\"\naction = \"{name}\"");
        check(&steps, Some("a"), "action", "there is no action", "did you mean `slack.message.post`?");
    }
    check(
        "[[step]]\nname = \"a\"\naction = \"rm -rf\"",
        Some("a"),
        "action",
        "there is no action",
        "the actions are okta.group.add_user, slack.message.post",
    );
    check(
        "[[step]]\nname = \"a\"\naction = \"okta.group.put\"",
        Some("a"),
        "action",
        "there is no action",
        "the actions that begin so are okta.group.add_user",
    );
}

#[test]
fn wrong_references_between_steps_are_told() {
    let post =
        |name: &str, rest: &str| format!("[[step]]\nname = \"{name}\"\naction = \"slack.message.post\"\n{rest}\n");
    let first = post("first", "");
    check(&format!("{first}{}", post("b", "after = [\"fisrt\"]")), Some("b"), "after", "no step `fisrt`", "first");
    check(
        &format!("{first}{}", post("b", "after = [\"firts\"]")),
        Some("b"),
        "after",
        "no step",
        "did you mean `first`?",
    );
    check(&post("b", "needs = [\"b\"]"), Some("b"), "needs", "itself", "remove");
    check(&post("b", "wait = \"3s\""), Some("b"), "wait", "nothing to wait for", "after");
    check(
        &format!("{first}{}", post("b", "with = { text = \"{{ steps.first.url }}\" }")),
        Some("b"),
        "with",
        "does not wait for `first`",
        "add `first` to `after`",
    );
    check(
        &format!("{first}{}", post("b", "when = 'steps.second.state == \"failed\"'")),
        Some("b"),
        "when",
        "no step `second`",
        "the steps are first, b",
    );
    check(
        &format!("{}{}", post("a", "after = [\"b\"]"), post("b", "needs = [\"a\"]")),
        None,
        "step",
        "wait for each other: `a`, `b`",
        "remove",
    );
    check(&format!("{}{}", post("a-b", ""), post("a_b", "")), Some("a_b"), "name", "another step", "differ");
}

#[test]
fn what_changes_access_cannot_depend_on_other_steps() {
    let steps = r#"
        [[step]]
        name = "first"
        action = "slack.message.post"
        [[step]]
        name = "second"
        after = ["first"]
        action = "okta.group.add_user"
    "#;
    check(
        &format!("{steps}with = {{ group = \"{{{{ steps.first.id }}}}\" }}"),
        Some("second"),
        "with",
        "changes access",
        "needs",
    );
    check(
        &format!("{steps}when = 'steps.first.state == \"failed\"'"),
        Some("second"),
        "when",
        "changes access",
        "needs",
    );
}

#[test]
fn parameters_are_checked_with_their_templates_in_place() {
    let step = "[[step]]\nname = \"a\"\naction = \"okta.group.add_user\"\n";
    check(&format!("{step}with = {{ grop = \"x\" }}"), Some("a"), "with", "unknown parameter `grop`", "adds the user");
    check(
        &format!("{step}with = {{ group = \"{{{{ weather }}}}\" }}"),
        Some("a"),
        "with.group",
        "nothing is called `weather`",
        "user_risk",
    );
    assert!(compile(&format!("{HEAD}{step}with = {{ group = \"{{{{ user.profile.department }}}}\" }}")).is_ok());
}

#[test]
fn every_problem_is_told_at_once() {
    let problems = compile(
        r#"
        name = "1"
        on = ["user.*"]
        when = "steps.a.state == 'x'"
        [[step]]
        name = "a b"
        when = "weather"
        action = "nothing"
        after = ["c"]
        "#,
    )
    .unwrap_err();
    let fields: Vec<_> = problems.iter().map(|problem| (problem.step.as_deref(), problem.field.as_str())).collect();
    let step = Some("a b");
    assert_eq!(
        fields,
        [
            (None, "name"),
            (None, "on"),
            (None, "when"),
            (step, "name"),
            (step, "after"),
            (step, "when"),
            (step, "action")
        ]
    );
    assert_eq!(compile("name = \"p\"\non = []").unwrap_err().len(), 2);
}

/// A step that posts a message.
fn post(name: &str, rest: &str) -> String {
    format!("[[step]]\nname = \"{name}\"\naction = \"slack.message.post\"\n{rest}\n")
}

#[test]
fn names_are_short_and_plain() {
    for name in ["a", "Z9-_z", &"a".repeat(64)] {
        let playbook = format!("name = \"{name}\"\non = [\"user.risk.detect\"]\n{}", post(name, ""));
        assert_eq!(compile(&playbook).unwrap().name, name);
    }
    let long = "a".repeat(65);
    for name in ["", "1a", "-a", "_a", "a b", "a.b", "aé", long.as_str()] {
        let problems = compile(&format!("name = \"{name}\"\non = [\"x\"]\n{}", post("a", ""))).unwrap_err();
        assert_eq!((problems.len(), problems[0].field.as_str()), (1, "name"), "{name}");
        assert_eq!(problems[0].message, format!("`{name}` is not a name"));
        assert!(problems[0].remedy.ends_with("at most 64"));
        check(&post(name, ""), Some(name), "name", "is not a name", "begin with a letter");
    }
}

#[test]
fn event_types_are_written_in_full() {
    let on = |kind: &str| compile(&format!("name = \"p\"\non = [\"x\", \"{kind}\"]\n{}", post("a", "")));
    let longest = "t".repeat(200);
    for kind in ["user.risk.detect", "policy.evaluate_sign_on", "a1", longest.as_str()] {
        assert_eq!(on(kind).unwrap().on, ["x", kind]);
    }
    let long = "t".repeat(201);
    for kind in ["", "user.*", "user risk", "user-risk", "usér", long.as_str()] {
        let problems = on(kind).unwrap_err();
        assert_eq!(problems.len(), 1, "{kind}");
        assert!(problems[0].message.ends_with("is not an event type"), "{}", problems[0].message);
    }
}

#[test]
fn what_a_step_needs_it_waits_for_as_well() {
    let steps = [
        post("a", ""),
        post("b", ""),
        post("c", "needs = [\"b\", \"a\"]\nafter = [\"a\"]\nwait = \"3s\"\nwith = { text = \"{{ steps.b.state }}\" }"),
        post("d", "needs = [\"a\"]\nwait = \"1m\"\napproval = true\nin_doubt = \"resend\""),
    ];
    let playbook = compile(&format!("{HEAD}mode = \"observe\"\n{}", steps.concat())).unwrap();
    let step = |name: &str| playbook.step(name).unwrap();
    assert_eq!(step("c").after, ["a", "b"]);
    assert_eq!(step("c").needs, ["b", "a"]);
    assert_eq!(step("c").wait, Some(std::time::Duration::from_secs(3)));
    assert_eq!((step("d").after.as_slice(), step("d").in_doubt), (["a".to_owned()].as_slice(), InDoubt::Resend));
    assert!(step("d").approval && !step("c").approval);
    assert_eq!(playbook.mode, crate::config::Mode::Observe);
}

/// A step that changes access.
fn change(name: &str, rest: &str) -> String {
    format!("[[step]]\nname = \"{name}\"\naction = \"okta.group.add_user\"\nwith = {{ group = \"g\" }}\n{rest}\n")
}

#[test]
fn a_step_may_be_done_later_unless_something_holds_by_then() {
    let asked = "user_risk == \"HIGH\" || steps.a.state == \"failed\" || count(\"user.session.start\", \"1h\") > 3";
    let later = change("b", &format!("after = [\"a\"]\ndelay = \"24h\"\ncancel_if = '{asked}'"));
    let playbook = compile(&format!("{HEAD}{}{later}", change("a", ""))).unwrap();
    let step = playbook.step("b").unwrap();
    assert_eq!(step.delay, Some(std::time::Duration::from_secs(24 * 3600)));
    assert_eq!(step.cancel_if.as_ref().unwrap().text(), asked);
    // They are fetched when the delay ends and not before.
    assert_eq!(step.facts_asked_later().to_string(), "user_risk, past");
    assert!(step.facts_named().is_empty() && playbook.questions().is_empty());
    assert_eq!(playbook.facts_named().to_string(), "user_risk, past");
    assert_eq!(playbook.questions_asked_later().len(), 1);
}

#[test]
fn what_a_delay_cannot_be_is_told() {
    let told = |rest: &str, field: &str, message: &str, remedy: &str| {
        check(&format!("{}{}", change("a", ""), change("b", rest)), Some("b"), field, message, remedy);
    };
    told("cancel_if = 'user_risk == \"HIGH\"'", "cancel_if", "the step has none", "add a `delay`");
    told("delay = \"91d\"", "delay", "longer than 90 days", "at most");
    told("delay = \"1h\"\ncancel_if = 'user_risk =='", "cancel_if", "not a CEL expression", "risk.level");
    told("delay = \"1h\"\ncancel_if = 'user_risk'", "cancel_if", "", "compare");
    told("delay = \"1h\"\ncancel_if = 'steps.a.state == \"failed\"'", "cancel_if", "does not wait for `a`", "`after`");
}

#[test]
fn a_change_of_access_does_not_stand_in_the_way_for_the_length_of_another_steps_delay() {
    let delayed = change("a", "delay = \"24h\"");
    let between = post("m", "after = [\"a\"]");
    for (rest, message) in [("after = [\"a\"]", "`a`"), ("needs = [\"m\"]", "`a`")] {
        check(&format!("{delayed}{between}{}", change("b", rest)), Some("b"), "after", message, "a `delay` of its own");
        let own = change("b", &format!("{rest}\ndelay = \"1h\""));
        assert!(compile(&format!("{HEAD}{delayed}{between}{own}")).is_ok());
    }
}

#[test]
fn a_step_reads_no_step_but_those_it_waits_for() {
    let reads = |name: &str| format!("with = {{ text = \"{{{{ steps.{name}.state }}}}\" }}");
    check(&post("a", &reads("a")), Some("a"), "with", "the step reads itself, `steps.a`", "read another step");
    check(
        &format!("{}{}", post("a", ""), post("b", "when = 'steps.a.state == \"failed\"'")),
        Some("b"),
        "when",
        "`steps.a` is read, but the step does not wait for `a`",
        "add `a` to `after`",
    );
    check(
        &format!("{}{}", post("first", ""), post("b", &format!("after = [\"first\"]\n{}", reads("frist")))),
        Some("b"),
        "with",
        "there is no step `frist`",
        "did you mean `first`?",
    );
}

#[test]
fn only_the_steps_of_a_circle_and_those_behind_it_are_told() {
    let circle = [
        post("free", ""),
        post("a", "after = [\"c\", \"free\"]"),
        post("b", "after = [\"a\"]"),
        post("c", "needs = [\"b\"]"),
        post("behind", "after = [\"c\"]"),
    ];
    let problems = compile(&format!("{HEAD}{}", circle.concat())).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_eq!(problems[0].message, "these steps wait for each other: `a`, `b`, `c`, `behind`");
    let long: String = (1..30).map(|n| post(&format!("s{n}"), &format!("after = [\"s{}\"]", n + 1))).collect();
    assert!(compile(&format!("{HEAD}{long}{}", post("s30", ""))).is_ok(), "a long chain is no circle");
}

#[test]
fn a_parameter_that_the_event_would_fill_can_be_given() {
    let step = "[[step]]\nname = \"a\"\naction = \"okta.group.add_user\"\nwith = { user = \"00u1\", group = \"g\" }\n";
    let playbook = compile(&format!("{HEAD}{step}")).unwrap();
    assert_eq!(playbook.step("a").unwrap().with.unrendered()["user"], "00u1");
}

#[test]
fn a_playbook_needs_steps_and_events_and_asks_about_neither_before_they_are_there() {
    let problems = compile("name = \"p\"\non = []\nwhen = 'steps.a.state == \"failed\"'").unwrap_err();
    let told: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(
        told,
        [
            "the playbook answers no event type",
            "no step has run when the playbook's condition is asked",
            "the playbook has no steps"
        ]
    );
}

#[test]
fn a_problem_behind_the_steps_belongs_to_none_of_them() {
    let steps = format!("{}{}", post("a b", "after = [\"c\"]"), post("c", "after = [\"a b\"]"));
    let problems = compile(&format!("{HEAD}{steps}")).unwrap_err();
    let steps: Vec<_> = problems.iter().map(|problem| problem.step.as_deref()).collect();
    assert_eq!(steps, [Some("a b"), None]);
}

#[test]
fn a_user_is_suspended_before_his_password_expires() {
    let step = |name: &str, action: &str, rest: &str| {
        format!("[[step]]\nname = \"{name}\"\naction = \"okta.user.{action}\"\n{rest}\n")
    };
    let suspend = |rest: &str| step("suspend", "suspend", rest);
    let expire = |rest: &str| step("expire", "expire_password", rest);
    let other = "with = { user = \"ann@example.com\" }";
    for (steps, fits) in [
        (suspend("") + &expire(""), true),
        (expire("") + &suspend(""), false),
        (expire("after = [\"suspend\"]") + &suspend(""), true),
        (suspend("after = [\"expire\"]") + &expire(""), false),
        (suspend("needs = [\"expire\"]") + &expire(""), false),
        (expire(other) + &suspend(""), true),
        (expire(other) + &suspend(other), false),
    ] {
        match compile_all(&format!("{HEAD}{steps}")) {
            Ok(_) => assert!(fits, "{steps}"),
            Err(problems) => {
                assert!(!fits, "{steps}: {problems:#?}");
                let [problem] = &problems[..] else { panic!("{problems:#?}") };
                assert_eq!((problem.step.as_deref(), problem.field.as_str()), (Some("suspend"), "action"));
                assert!(problem.message.contains("`expire`"), "{problem:?}");
            }
        }
    }
}

/// An incident and a message that tells of it, with more about the message.
fn telling(more: &str, text: &str) -> String {
    format!(
        "{HEAD}[[step]]\nname = \"incident\"\naction = \"servicenow.incident.create\"\nwith = {{ short_description = \"s\" }}\n\
         [[step]]\nname = \"tell\"\nafter = [\"incident\"]\naction = \"slack.message.post\"\n{more}\n\
         with = {{ channel = \"#c\", text = \"{text}\" }}\n"
    )
}

const NUMBER: &str = "{{ steps.incident.number }}";

#[test]
fn a_message_with_update_goes_out_at_once_and_is_edited_behind_everything_that_it_tells_of() {
    let playbook = compile_all(&telling("update = true", NUMBER)).unwrap();
    let order: Vec<_> = playbook.in_order().iter().map(|step| step.name.as_str()).collect();
    assert_eq!(order, ["incident", "tell", "tell#update"]);
    assert_eq!(playbook.step("tell").unwrap().wait, Some(Duration::ZERO));
    let edit = playbook.step("tell#update").unwrap();
    assert_eq!((edit.action.name, edit.edits.as_deref()), ("slack.message.update", Some("tell")));
    assert_eq!((&edit.after[..], &edit.needs[..]), (&["incident".into(), "tell".into()][..], &["tell".into()][..]));
    assert_eq!((edit.wait, edit.in_doubt, edit.approval), (None, InDoubt::Resend, false));
    let with = Value::Object(edit.with.unrendered());
    assert_eq!(with, serde_json::json!({"message": "tell", "text": NUMBER}));
    let waits = compile_all(&telling("update = true\nwait = \"5s\"\nin_doubt = \"ask\"", NUMBER)).unwrap();
    assert_eq!(waits.step("tell").unwrap().wait, Some(Duration::from_secs(5)));
    assert!(compile_all(&telling("", NUMBER)).unwrap().step("tell#update").is_none());
}

#[track_caller]
fn check_all(toml: &str, step: &str, field: &str, message: &str) {
    let problems = compile_all(toml).unwrap_err();
    let [problem] = &problems[..] else { panic!("{problems:#?}") };
    assert_eq!((problem.step.as_deref(), problem.field.as_str()), (Some(step), field), "{problem:?}");
    assert!(problem.message.contains(message), "{problem:?}");
}

#[test]
fn an_update_without_anything_to_add_is_told() {
    check_all(&telling("update = true", "x"), "tell", "update", "reads no `steps.`");
    let mail = telling("update = true", NUMBER).replace("slack.message.post", "email.send").replace("channel", "to");
    let mail = mail.replace("text =", "subject = \"s\", text =").replace("#c", "a@example.com");
    check_all(&mail, "tell", "update", "`email.send` cannot be edited");
    check_all(&telling("update = true\nneeds = [\"incident\"]", NUMBER), "tell", "update", "would not wait");
    let asks = "update = true\nwhen = 'steps.incident.state == \"failed\"'";
    check_all(&telling(asks, NUMBER), "tell", "update", "would not wait");
    compile_all(&telling(&format!("{asks}\nneeds = [\"incident\"]\nwait = \"5s\""), NUMBER)).unwrap();
    let taken = format!(
        "{}[[step]]\nname = \"tell-update\"\naction = \"okta.user.suspend\"\n",
        telling("update = true", NUMBER)
    );
    check_all(&taken, "tell-update", "name", "is how the edit of `tell` is called");
}

#[test]
fn a_step_that_edits_a_message_waits_for_it_and_needs_it() {
    let edit = |message: &str, more: &str| {
        format!(
            "{}[[step]]\nname = \"more\"\naction = \"slack.message.update\"\n{more}\n\
             with = {{ message = \"{message}\", text = \"{{{{ steps.tell.id }}}}\" }}\n",
            telling("", NUMBER)
        )
    };
    let playbook = compile_all(&edit("tell", "wait = \"1m\"")).unwrap();
    let step = playbook.step("more").unwrap();
    assert_eq!((&step.after[..], &step.needs[..]), (&["tell".to_owned()][..], &["tell".to_owned()][..]));
    check_all(&edit("incident", "after = [\"tell\"]"), "more", "with.message", "`incident` is no step that posts");
    let circle = edit("tell", "").replace("after = [\"incident\"]", "after = [\"incident\", \"more\"]");
    let problems = compile_all(&circle).unwrap_err();
    assert!(
        problems.iter().any(|problem| problem.message.contains("wait for each other: `tell`, `more`")),
        "{problems:?}"
    );
}

#[test]
fn a_block_that_slack_would_refuse_as_it_is_written_is_told() {
    let section = |text: &str| {
        let blocks =
            format!("blocks = [{{ type = \"section\", text = {{ type = \"mrkdwn\", text = \"{text}\" }} }}], text =");
        telling("", NUMBER).replace("text =", &blocks)
    };
    compile_all(&section(NUMBER)).unwrap();
    check_all(&section(&"x".repeat(3001)), "tell", "with", "more than 3000 characters");
}

#[test]
fn nobody_is_taken_out_of_the_group_that_the_same_run_puts_him_into() {
    let step = |name: &str, action: &str, rest: &str| {
        format!("[[step]]\nname = \"{name}\"\naction = \"okta.group.{action}\"\n{rest}\n")
    };
    let add = |rest: &str| step("add", "add_user", &format!("with = {{ group = \"High\" }}\n{rest}"));
    let strip = |rest: &str| step("strip", "remove_user_from_all", rest);
    for (steps, fits) in [
        (add("") + &strip(""), false),
        (strip("after = [\"add\"]") + &add(""), false),
        (strip("") + &add("after = [\"strip\"]"), true),
        (add("") + &strip("with = { except = [\"Staff\"] }"), false),
        (add("") + &strip("with = { except = [\"High\"] }"), true),
        (add("") + &strip("with = { except = [\"00g1abcdefGHIJKLMN69\"] }"), true),
        (add("") + &strip("with = { user = \"ann@example.com\" }"), true),
        (add("when = 'risk.level == \"HIGH\"'") + &strip(""), false),
        (add("when = 'risk.level == \"HIGH\"'") + &strip("when = 'risk.level == \"LOW\"'"), true),
        (step("add", "move_user", "with = { from = \"Staff\", to = \"High\" }") + &strip(""), false),
    ] {
        match compile_all(&format!("{HEAD}{steps}")) {
            Ok(_) => assert!(fits, "{steps}"),
            Err(problems) => {
                assert!(!fits, "{steps}: {problems:#?}");
                let [problem] = &problems[..] else { panic!("{problems:#?}") };
                assert_eq!((problem.step.as_deref(), problem.field.as_str()), (Some("strip"), "with"));
                assert!(problem.message.contains("`High`") && problem.message.contains("`add`"), "{problem:?}");
            }
        }
    }
}
