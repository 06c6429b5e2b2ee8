//! The checks that can refuse an action or keep an event from starting a run. Pure: no IO, no clock.
//!
//! When in doubt the guard refuses: a quarantine that was not done is seen and done by a person, a break-glass account
//! that was locked out may be the last way in.
//!
//! It is asked twice. When an action is prepared, so that what will never be done is known at once ([`Guard::admit`]); and
//! when it is claimed, inside the transaction that also writes its attempt ([`Judge::rule`]), because between the two lie
//! retries, pauses, restarts and reloads. Only the second makes a [`Cleared`] call, and only such a call can be sent.

pub mod alarm;
mod clearance;
pub mod limits;
mod protection;
pub mod standing;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::config::{GuardConfig, Mode};
use crate::connectors::ActionKind;
use crate::model::event::Event;
use crate::model::risk::Risk;
use crate::playbook::Playbook;

pub use clearance::{Candidate, Cleared, Judge, Ruling, Trip};
pub use protection::{ANY_ROLE, Subject};

use alarm::Alarm;
use limits::Limits;
use protection::Protected;

/// How far an echo may lie before our own record of what caused it, since two clocks are compared.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(1);

/// What is never done, or not without a person.
#[derive(Debug, Clone)]
pub struct Guard {
    mode: Mode,
    own_ids: BTreeSet<String>,
    /// Who we were before a reload, and until when events are taken for that one's.
    former_ids: BTreeMap<String, Timestamp>,
    echo_window: SignedDuration,
    max_event_age: Option<Duration>,
    approval_expires: Option<Duration>,
    protected: Protected,
    limits: Limits,
    alarm: Option<Alarm>,
    playbooks: BTreeMap<String, Rules>,
}

/// What a playbook says of its own actions.
#[derive(Debug, Clone)]
struct Rules {
    mode: Mode,
    approval: BTreeSet<String>,
}

/// What the guard says about one action when it is prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It may go on; the guard is asked again before it is sent.
    Pass,
    /// It is recorded and not done: observe mode.
    Observe,
    /// It is not done.
    Refused {
        /// The sentence to record.
        why: String,
    },
}

impl Guard {
    /// Takes the configuration and the principals that are this daemon: the user whom the API token belongs to, or the
    /// client that signs in.
    pub fn new(config: &GuardConfig, own_ids: impl IntoIterator<Item = String>) -> Self {
        let own_ids = own_ids.into_iter().chain(config.own_ids.iter().cloned());
        Self {
            mode: config.mode,
            own_ids: own_ids.filter(|id| !id.is_empty()).collect(),
            former_ids: BTreeMap::new(),
            echo_window: SignedDuration::try_from(config.echo_window).unwrap_or(SignedDuration::MAX),
            max_event_age: config.max_event_age,
            approval_expires: config.approval_expires.bound(),
            protected: Protected::new(config),
            limits: Limits::new(&config.limits),
            alarm: config.alarm.as_ref().and_then(Alarm::new),
            playbooks: BTreeMap::new(),
        }
    }

    /// The same guard, which knows who we were before, each until a moment: what was done under another name reaches the log
    /// when we have the new one already.
    #[must_use]
    pub fn formerly(mut self, ids: BTreeMap<String, Timestamp>) -> Self {
        self.former_ids = ids;
        self
    }

    /// The same guard, which at the claim also asks the playbooks as they are now: whether they observe, and which of
    /// their steps a person has to allow.
    #[must_use]
    pub fn over(mut self, playbooks: &[Playbook]) -> Self {
        let rules = |playbook: &Playbook| Rules {
            mode: playbook.mode,
            approval: playbook.steps.iter().filter(|step| step.approval).map(|step| step.name.clone()).collect(),
        };
        self.playbooks = playbooks.iter().map(|playbook| (playbook.name.clone(), rules(playbook))).collect();
        self
    }

    /// Whether we caused the event ourselves; such an event starts no run.
    pub fn is_own(&self, event: &Event) -> bool {
        let was_ours = |id: &str| self.former_ids.get(id).is_some_and(|until| event.published <= *until);
        event.actor().is_some_and(|actor| self.own_ids.contains(actor.id) || was_ours(actor.id))
    }

    /// Whether a fall in risk is the echo of our own reset of this user at `last_reset`: Okta lowers a user's risk when his
    /// sessions are cleared, with the system as actor (Okta API reference, user sessions). A person who lowers the risk
    /// in the same minutes is no echo.
    pub fn is_echo(&self, event: &Event, risk: &Risk, last_reset: Option<Timestamp>) -> bool {
        let Some(reset) = last_reset else { return false };
        let nobody = ["", "unknown", "SystemPrincipal"];
        let by_system =
            event.actor().is_none_or(|actor| nobody.iter().any(|kind| actor.kind.eq_ignore_ascii_case(kind)));
        let since = event.published.duration_since(reset);
        risk.is_fall() && by_system && since >= -CLOCK_SKEW && since <= self.echo_window
    }

    /// Whether nothing at all is touched, whatever the playbooks say.
    pub fn observes(&self) -> bool {
        self.mode == Mode::Observe
    }

    /// Whether users have to be read from Okta with their groups, and with their admin roles.
    pub fn reads(&self) -> (bool, bool) {
        (self.protected.reads_groups(), self.protected.reads_roles())
    }

    /// What awaits approval since before this moment is refused; `None` when it may wait for ever.
    pub fn approvals_expire(&self, now: Timestamp) -> Option<(Timestamp, String)> {
        let wait = self.approval_expires?;
        let before = now.saturating_sub(SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX)).ok()?;
        Some((before, format!("nobody approved it within {}", humantime::format_duration(wait))))
    }

    /// Whether an action with these final parameters may go on. Refusals come before observing, so that observe mode
    /// shows what would be refused. What only Okta can tell (groups, roles) is asked for at the claim.
    pub fn admit(
        &self,
        kind: &ActionKind,
        params: &Value,
        subject: Subject<'_>,
        published: Timestamp,
        now: Timestamp,
        playbook_mode: Mode,
    ) -> Admission {
        let refusal = kind
            .changes_access
            .then(|| self.protected.by_name(params, subject).or_else(|| self.staleness(published, Duration::ZERO, now)))
            .flatten();
        match refusal {
            Some(why) => Admission::Refused { why },
            None if self.mode == Mode::Observe || playbook_mode == Mode::Observe => Admission::Observe,
            None => Admission::Pass,
        }
    }

    fn staleness(&self, published: Timestamp, delay: Duration, now: Timestamp) -> Option<String> {
        let most = self.max_event_age?;
        let age = Duration::try_from(now.duration_since(published)).unwrap_or_default().saturating_sub(delay);
        (age > most).then(|| {
            let beside = if delay.is_zero() { "" } else { " besides the delay of its step" };
            format!(
                "the event is {} old{beside}, more than [guard] max_event_age = {}",
                humantime::format_duration(Duration::from_secs(age.as_secs())),
                humantime::format_duration(most)
            )
        })
    }

    /// A playbook that is not there any more has no say.
    fn mode_of(&self, playbook: &str) -> Mode {
        let own = self.playbooks.get(playbook).map_or(Mode::Enforce, |rules| rules.mode);
        if self.observes() { Mode::Observe } else { own }
    }

    fn wants_approval(&self, playbook: &str, step: &str) -> bool {
        self.playbooks.get(playbook).is_some_and(|rules| rules.approval.contains(step))
    }
}

/// Names are compared without case and surrounding white space.
fn fold(name: &str) -> String {
    name.trim().to_lowercase()
}

fn short(name: &str) -> String {
    name.chars().take(100).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::connectors::{Effect, FromEvent, Inverse, Service};
    use crate::model::escape::Escape;
    use crate::model::event::SOURCE_OKTA;

    const ID: &str = "00uannannannannannan";
    const LOGIN: &str = "ann@example.com";

    static ADD_USER: ActionKind = ActionKind {
        name: "okta.group.add_user",
        summary: "adds the user to a group",
        service: Service::Okta,
        effect: Effect::SetLike,
        changes_access: true,
        resets_risk: false,
        rights: &[],
        from_event: &[("user", FromEvent::UserId)],
        check: |_| Ok(()),
        schema: |_| true.into(),
        escape: |_| Escape::Plain,
        lane: |_| None,
        inverse: |_| Inverse::impossible(""),
    };

    static POST: ActionKind =
        ActionKind { name: "slack.message.post", changes_access: false, from_event: &[], ..ADD_USER };

    fn guard(change: impl FnOnce(&mut GuardConfig)) -> Guard {
        let mut config = GuardConfig::default();
        change(&mut config);
        Guard::new(&config, ["0oaours".to_owned()])
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    const PUBLISHED: &str = "2026-08-24T10:00:00Z";

    fn event(actor: Value) -> Event {
        let body = json!({"uuid": "u", "eventType": "user.risk.detect", "published": PUBLISHED, "actor": actor});
        Event::parse(SOURCE_OKTA, &body.to_string()).unwrap()
    }

    fn admit(guard: &Guard, kind: &ActionKind, params: &Value, now: &str) -> Admission {
        let subject = Subject { id: Some(ID), login: Some(LOGIN) };
        guard.admit(kind, params, subject, at(PUBLISHED), at(now), Mode::Enforce)
    }

    #[track_caller]
    fn check(guard: &Guard, params: &Value, refused_because: Option<&str>) {
        match (admit(guard, &ADD_USER, params, PUBLISHED), refused_because) {
            (Admission::Pass, None) => {}
            (Admission::Refused { why }, Some(part)) => assert!(why.contains(part), "{why}"),
            (other, _) => panic!("{params}: {other:?}"),
        }
    }

    #[test]
    fn events_that_we_caused_are_known() {
        let guard = guard(|config| config.own_ids = vec!["00uours".to_owned()]);
        assert!(guard.is_own(&event(json!({"id": "0oaours", "type": "PublicClientApp"}))));
        assert!(guard.is_own(&event(json!({"id": "00uours", "type": "User"}))));
        assert!(!guard.is_own(&event(json!({"id": "00uother", "type": "User"}))));
        assert!(!guard.is_own(&event(Value::Null)));
    }

    #[test]
    fn what_we_did_under_another_name_stays_our_own_and_what_comes_after_does_not() {
        let before = event(json!({"id": "00ubefore", "type": "User"}));
        let until = |moment: &str| guard(|_| {}).formerly(BTreeMap::from([("00ubefore".to_owned(), at(moment))]));
        assert!(!guard(|_| {}).is_own(&before));
        assert!(until(PUBLISHED).is_own(&before));
        assert!(!until("2026-08-24T09:59:59Z").is_own(&before));
        assert!(until(PUBLISHED).is_own(&event(json!({"id": "0oaours", "type": "PublicClientApp"}))));
    }

    #[test]
    fn an_echo_is_a_fall_by_the_system_soon_after_our_reset() {
        let guard = guard(|_| {});
        let system = event(json!({"id": "spr1", "type": "SystemPrincipal"}));
        let fall = Risk::parse("{previousLevel=HIGH, level=LOW}");
        let rise = Risk::parse("{previousLevel=LOW, level=HIGH}");
        let at_reset = |reset: &str| Some(at(reset));
        for reset in ["2026-08-24T09:59:59Z", "2026-08-24T09:50:00Z", "2026-08-24T10:01:00Z"] {
            assert!(guard.is_echo(&system, &fall, at_reset(reset)), "{reset}");
            assert!(guard.is_echo(&event(Value::Null), &fall, at_reset(reset)), "{reset}");
            assert!(guard.is_echo(&event(json!({"id": "x", "type": "Unknown"})), &fall, at_reset(reset)), "{reset}");
            assert!(!guard.is_echo(&system, &rise, at_reset(reset)), "{reset}");
            assert!(
                !guard.is_echo(&event(json!({"id": "00uadmin", "type": "User"})), &fall, at_reset(reset)),
                "{reset}"
            );
        }
        for reset in ["2026-08-24T09:49:59Z", "2026-08-24T10:01:01Z"] {
            assert!(!guard.is_echo(&system, &fall, at_reset(reset)), "{reset}");
        }
        assert!(!guard.is_echo(&system, &fall, None));
    }

    #[test]
    fn protected_groups_and_apps_are_refused_wherever_they_are_named() {
        let guard = guard(|config| {
            config.protected_groups = vec!["Super Admins".to_owned()];
            config.protected_apps = vec!["0oavpn".to_owned()];
        });
        check(&guard, &json!({"user": ID, "group": "High Risk Users"}), None);
        check(&guard, &json!({"user": ID, "group": " super admins "}), Some("protected_groups"));
        check(&guard, &json!({"user": ID, "apps": [{"app": "0oavpn"}]}), Some("protected_apps"));
    }

    #[test]
    fn what_a_refusal_repeats_is_one_short_line() {
        let name = format!("Admins\n{}", "x".repeat(200));
        let guard = guard(|config| config.protected_groups = vec![name.clone()]);
        let told = format!("`Admins {}` is protected by [guard] protected_groups or protected_apps", "x".repeat(93));
        let why = admit(&guard, &ADD_USER, &json!({ "group": name }), PUBLISHED);
        assert_eq!(why, Admission::Refused { why: told });
    }

    #[test]
    fn only_changes_of_access_grow_stale() {
        let guard = guard(|config| config.max_event_age = Some(Duration::from_secs(3600)));
        let params = json!({"user": ID});
        assert_eq!(admit(&guard, &ADD_USER, &params, "2026-08-24T11:00:00Z"), Admission::Pass);
        assert_eq!(
            admit(&guard, &ADD_USER, &params, "2026-08-24T11:00:01Z"),
            Admission::Refused { why: "the event is 1h 1s old, more than [guard] max_event_age = 1h".to_owned() }
        );
        assert_eq!(admit(&guard, &POST, &params, "2026-08-25T11:00:01Z"), Admission::Pass);
        assert_eq!(admit(&guard, &ADD_USER, &params, "2026-08-24T09:00:00Z"), Admission::Pass);
    }

    #[test]
    fn the_delay_of_a_step_makes_no_event_older() {
        let guard = guard(|config| config.max_event_age = Some(Duration::from_secs(3600)));
        let stale = |now: &str| guard.staleness(at(PUBLISHED), Duration::from_secs(24 * 3600), at(now));
        assert_eq!(stale("2026-08-25T11:00:00Z"), None);
        let told = "the event is 1h 1s old besides the delay of its step, more than [guard] max_event_age = 1h";
        assert_eq!(stale("2026-08-25T11:00:01Z"), Some(told.to_owned()));
    }

    #[test]
    fn observing_shows_what_would_be_refused() {
        let guard = guard(|config| {
            config.mode = Mode::Observe;
            config.protected_groups = vec!["Admins".to_owned()];
        });
        assert_eq!(admit(&guard, &ADD_USER, &json!({"user": ID}), PUBLISHED), Admission::Observe);
        assert_eq!(admit(&guard, &POST, &json!({}), PUBLISHED), Admission::Observe);
        assert!(matches!(admit(&guard, &ADD_USER, &json!({"group": "Admins"}), PUBLISHED), Admission::Refused { .. }));
    }

    #[test]
    fn a_protected_user_is_refused_when_the_action_is_prepared() {
        for (listed, named) in [(ID, ID), (LOGIN, ID), (LOGIN, "ANN@example.com "), (LOGIN, "ann")] {
            let guard = guard(|config| config.protected_users = vec![listed.to_owned()]);
            check(&guard, &json!({"user": named}), Some("protected_users"));
        }
        let other = guard(|config| config.protected_users = vec!["ann@elsewhere.example".to_owned()]);
        check(&other, &json!({"user": ID}), None);
    }

    #[test]
    fn approvals_expire_after_the_configured_time() {
        use crate::config::values::Expiry;
        let day = guard(|_| {}).approvals_expire(at("2026-08-24T10:00:00Z")).unwrap();
        assert_eq!(day, (at("2026-08-23T10:00:00Z"), "nobody approved it within 1day".to_owned()));
        let never = guard(|config| config.approval_expires = Expiry::Never);
        assert_eq!(never.approvals_expire(at("2026-08-24T10:00:00Z")), None);
    }

    #[test]
    fn only_what_is_configured_is_read_from_okta() {
        assert_eq!(guard(|_| {}).reads(), (false, false));
        assert_eq!(guard(|config| config.protected_members_of = vec!["a".to_owned()]).reads(), (true, false));
        assert_eq!(guard(|config| config.protected_roles = vec!["any".to_owned()]).reads(), (false, true));
    }

    #[test]
    fn one_playbook_can_observe_alone() {
        let admission =
            guard(|_| {}).admit(&POST, &json!({}), Subject::default(), at(PUBLISHED), at(PUBLISHED), Mode::Observe);
        assert_eq!(admission, Admission::Observe);
    }

    #[test]
    fn a_login_that_okta_does_not_know_is_no_login() {
        let body = json!({"uuid": "u", "eventType": "x", "published": PUBLISHED,
            "target": [{"id": ID, "type": "User", "alternateId": "unknown"}]});
        let event = Event::parse(SOURCE_OKTA, &body.to_string()).unwrap();
        assert_eq!(Subject::of(&event), Subject { id: Some(ID), login: None });
    }

    proptest! {
        #[test]
        fn no_parameters_make_the_guard_panic(text in any::<String>(), depth in 0..40_usize) {
            let mut params = json!(text);
            for _ in 0..depth {
                params = json!([params]);
            }
            let guard = guard(|config| config.protected_users = vec![LOGIN.to_owned()]);
            let _ = admit(&guard, &ADD_USER, &json!({"user": ID, "x": params}), PUBLISHED);
        }
    }
}
