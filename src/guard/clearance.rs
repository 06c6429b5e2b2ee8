//! The guard's word at the claim. What it has not cleared cannot be sent: [`Connector::perform`] takes only what this
//! module hands out.
//!
//! ```compile_fail,E0423
//! use okta_responder::connectors::Call;
//! use okta_responder::guard::Cleared;
//!
//! fn around_the_guard(call: Call) -> Cleared<Call> {
//!     Cleared(call)
//! }
//! ```
//!
//! [`Connector::perform`]: crate::connectors::Connector::perform

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::alarm::Message;
use super::limits::Spent;
use super::protection::{Protection, Subject};
use super::standing::Standings;
use super::{Guard, short};
use crate::config::Mode;
use crate::connectors::{self, Call};
use crate::model::event::Event;
use crate::model::ids::{ActionId, IdempotencyKey};
use crate::model::outcome::Receipt;

/// Something that the guard has passed, for one attempt. Nobody else makes one, and it cannot be copied.
#[derive(Debug)]
pub struct Cleared<T> {
    what: T,
    /// Whoever cleared it; nobody in tests of connectors.
    guard: Option<Arc<Guard>>,
}

impl<T> Deref for Cleared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.what
    }
}

impl<T> Cleared<T> {
    /// Why a group, an app or a device that was found only on the way must not be touched: one of the names and ids by which
    /// it is known is protected. To be asked of everything that is changed and that the parameters do not name exactly so.
    pub fn protects<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
        let guard = self.guard.as_ref()?;
        names.into_iter().find_map(|name| guard.protected.by_thing(name))
    }

    /// Whether users are on a list by name, so that it is worth reading who else is affected.
    pub fn lists_users(&self) -> bool {
        self.guard.as_ref().is_some_and(|guard| guard.protected.lists_users())
    }

    /// Why a user who is affected as well must not be touched: his id or his login is on the list.
    pub fn protects_user<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
        let guard = self.guard.as_ref()?;
        names.into_iter().find_map(|name| guard.protected.by_user(name))
    }
}

#[cfg(test)]
impl<T> Cleared<T> {
    /// For tests of connectors, which need no guard. The daemon's build has no such thing.
    pub(crate) fn unguarded(what: T) -> Self {
        Self { what, guard: None }
    }

    /// The same under a guard, for what connectors ask of it on the way.
    pub(crate) fn under(guard: Guard, what: T) -> Self {
        Self { what, guard: Some(Arc::new(guard)) }
    }
}

/// An action that may be sent next, if the guard lets it.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its row.
    pub id: ActionId,
    /// The playbook.
    pub playbook: String,
    /// The step.
    pub step: String,
    /// `connector.noun.verb`
    pub kind: String,
    /// The idempotency key.
    pub key: IdempotencyKey,
    /// Final parameters, as JSON.
    pub params: String,
    /// The number of the attempt.
    pub attempt: u32,
    /// What attempts before recorded.
    pub earlier: Receipt,
    /// Whether its run only observes.
    pub observe: bool,
    /// Whether a person has allowed it.
    pub approved: bool,
    /// The affected user's id.
    pub subject: Option<String>,
    /// Such as `okta`.
    pub source: String,
    /// When the event happened.
    pub published: Timestamp,
    /// How much later its step was meant to be done: that does not make it stale.
    pub delay: Duration,
    /// The event's record, if the judge [reads it](Judge::reads_records) and it is still there.
    pub record: Option<String>,
}

/// What becomes of a candidate.
#[derive(Debug)]
pub enum Ruling {
    /// It is sent.
    Pass {
        /// What is sent.
        call: Cleared<Call>,
        /// Whether it counts against the limits.
        counted: bool,
    },
    /// It is not done: observe mode.
    Observe {
        /// The sentence to record.
        why: String,
    },
    /// A person has to allow it.
    Hold {
        /// A word from a closed list: `limit` or `approval`.
        reason: &'static str,
        /// The sentence to record.
        why: String,
        /// Whether the playbook is stopped by it, and the message that tells people so.
        trip: Option<Trip>,
    },
    /// It is never done.
    Refuse {
        /// The sentence to record.
        why: String,
    },
    /// It cannot be told now; it is looked at again.
    Later {
        /// When.
        until: Timestamp,
        /// The sentence to record.
        why: String,
    },
    /// These users have to be read from Okta first. Nothing is recorded.
    Ask(Vec<String>),
}

/// A playbook that is stopped.
#[derive(Debug, Clone, PartialEq)]
pub struct Trip {
    /// The sentence to record.
    pub why: String,
    /// The message to people, if one is configured.
    pub alarm: Option<Message>,
}

/// The guard at one moment, with what is known of users then: what [`claim_ready`](crate::store::Store::claim_ready) asks
/// for each candidate.
#[derive(Debug, Clone)]
pub struct Judge {
    guard: Arc<Guard>,
    standings: Arc<Standings>,
    now: Timestamp,
    hour_began: Timestamp,
}

impl Judge {
    /// Attempts that began after `hour_began` count against the limits.
    pub fn new(guard: Arc<Guard>, standings: Arc<Standings>, now: Timestamp, hour_began: Timestamp) -> Self {
        Self { guard, standings, now, hour_began }
    }

    /// Attempts that began after this count; nothing has to be counted when there is no limit.
    pub fn counts_after(&self) -> Option<Timestamp> {
        self.guard.limits.count().then_some(self.hour_began)
    }

    /// Whether the records of events have to be read, because a login in them may be on a list.
    pub fn reads_records(&self) -> bool {
        self.guard.protected.lists_users()
    }

    /// Rules over one candidate. Whoever lets one pass records it in `spent` before the next is asked for.
    ///
    /// The order is part of the promise: a protected user is protected whoever has allowed it; observe mode touches
    /// nothing; a person's word stands against staleness, limits and a stop, and against nothing else.
    pub fn rule(&self, candidate: &Candidate, spent: &Spent) -> Ruling {
        let guard = &*self.guard;
        let refuse = |why: String| Ruling::Refuse { why };
        let Some(kind) = connectors::kind(&candidate.kind) else {
            return refuse(format!("there is no action `{}` in this version", short(&candidate.kind)));
        };
        let Ok(params) = serde_json::from_str::<Value>(&candidate.params) else {
            return refuse("its stored parameters cannot be read".to_owned());
        };
        let event = candidate.record.as_deref().and_then(|body| Event::parse(&candidate.source, body).ok());
        let mut subject = event.as_ref().map(Subject::of).unwrap_or_default();
        if subject.id != candidate.subject.as_deref() {
            subject = Subject { id: candidate.subject.as_deref(), login: None };
        }
        if kind.changes_access {
            if let Some(why) = guard.protected.by_name(&params, subject) {
                return refuse(why);
            }
            if !candidate.approved
                && let Some(why) = guard.staleness(candidate.published, candidate.delay, self.now)
            {
                return refuse(why);
            }
        }
        let mode = guard.mode_of(&candidate.playbook);
        if candidate.observe || mode == Mode::Observe {
            let whose = if guard.observes() { "[guard] mode = \"observe\"" } else { "its playbook observes" };
            return Ruling::Observe { why: format!("{whose}: it is recorded and not done") };
        }
        if !candidate.approved {
            let hold = |reason, why| Ruling::Hold { reason, why, trip: None };
            if kind.changes_access
                && let Some(why) = spent.stopped(&candidate.playbook)
            {
                return hold("limit", format!("the playbook is stopped: {why}"));
            }
            // A message that was taken back and is tried again may never have been allowed either.
            if guard.wants_approval(&candidate.playbook, &candidate.step) {
                return hold("approval", "its step has approval = true".to_owned());
            }
        }
        if kind.changes_access {
            match guard.protected.by_standing(kind, &params, subject, &self.standings, self.now) {
                Protection::None => {}
                Protection::Protected(why) => return refuse(why),
                Protection::Unasked(users) => return Ruling::Ask(users),
                Protection::Unreadable { until, why } => return Ruling::Later { until, why },
            }
            if !candidate.approved
                && let Some(over) = guard.limits.over(spent, candidate.id, &candidate.playbook, kind.name)
            {
                let alarm = guard.alarm.as_ref();
                let trip = (!over.always).then(|| Trip {
                    why: over.why.clone(),
                    alarm: alarm.map(|alarm| alarm.message(&candidate.playbook, &over.why)),
                });
                return Ruling::Hold { reason: "limit", why: over.why, trip };
            }
        }
        let (key, earlier) = (candidate.key.clone(), candidate.earlier.clone());
        let call = Call { key, params, attempt: candidate.attempt, earlier };
        let call = Cleared { what: call, guard: Some(Arc::clone(&self.guard)) };
        Ruling::Pass { call, counted: kind.changes_access && !candidate.approved }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::standing::Standing;
    use super::*;
    use crate::config::{AlarmConfig, GuardConfig, Limit, LimitsConfig, PlaybookConfig};
    use crate::model::outcome::GroupNote;
    use crate::playbook::Playbook;

    const ID: &str = "00uannannannannannan";
    const LOGIN: &str = "ann@example.com";
    const STRANGER: &str = "00ubobbobbobbobbobbo";
    const PUBLISHED: &str = "2026-08-24T10:00:00Z";
    const NOW: &str = "2026-08-24T10:05:00Z";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn record(id: &str, login: &str) -> String {
        let target = json!([{"id": id, "type": "User", "alternateId": login}]);
        json!({"uuid": "u", "eventType": "x", "published": PUBLISHED, "target": target}).to_string()
    }

    /// Ann is to be added to a group, because of something about her.
    fn candidate() -> Candidate {
        Candidate {
            id: ActionId(1),
            playbook: "p".to_owned(),
            step: "s".to_owned(),
            kind: "okta.group.add_user".to_owned(),
            key: IdempotencyKey::derive("okta", "u", "p", "s"),
            params: json!({"user": ID, "group": "High"}).to_string(),
            attempt: 3,
            earlier: Receipt::default(),
            observe: false,
            approved: false,
            subject: Some(ID.to_owned()),
            source: "okta".to_owned(),
            published: at(PUBLISHED),
            delay: Duration::ZERO,
            record: Some(record(ID, LOGIN)),
        }
    }

    fn message() -> Candidate {
        let params = json!({"channel": "#a", "text": "t"}).to_string();
        Candidate { kind: "slack.message.post".to_owned(), params, ..candidate() }
    }

    fn judge_knowing(change: impl FnOnce(&mut GuardConfig), standings: Standings) -> Judge {
        let mut config = GuardConfig { limits: LimitsConfig::unlimited(), ..GuardConfig::default() };
        change(&mut config);
        let guard = Arc::new(Guard::new(&config, []));
        Judge::new(guard, Arc::new(standings), at(NOW), at("2026-08-24T09:05:00Z"))
    }

    fn judge(change: impl FnOnce(&mut GuardConfig)) -> Judge {
        judge_knowing(change, Standings::default())
    }

    /// The ruling in a few words.
    fn told(judge: &Judge, candidate: &Candidate) -> String {
        match judge.rule(candidate, &Spent::default()) {
            Ruling::Pass { counted, .. } => format!("pass, counted: {counted}"),
            Ruling::Observe { why } => format!("observe: {why}"),
            Ruling::Hold { reason, why, trip } => format!("hold, {reason}, trip: {}: {why}", trip.is_some()),
            Ruling::Refuse { why } => format!("refuse: {why}"),
            Ruling::Later { until, why } => format!("later, {until}: {why}"),
            Ruling::Ask(users) => format!("ask: {}", users.join(", ")),
        }
    }

    #[track_caller]
    fn check(judge: &Judge, candidate: &Candidate, expected: &str) {
        let told = told(judge, candidate);
        assert!(told.contains(expected), "{told}, not {expected}");
    }

    #[test]
    fn what_passes_is_the_call_as_it_was_prepared() {
        let candidate = candidate();
        let Ruling::Pass { call, counted } = judge(|_| {}).rule(&candidate, &Spent::default()) else { panic!() };
        assert!(counted);
        assert_eq!((&call.key, call.attempt), (&candidate.key, 3));
        assert_eq!(call.params, json!({"user": ID, "group": "High"}));
        check(&judge(|_| {}), &message(), "pass, counted: false");
        check(&judge(|_| {}), &Candidate { approved: true, ..candidate }, "pass, counted: false");
    }

    #[test]
    fn what_passes_knows_what_is_protected_and_what_was_remembered() {
        let judge = judge(|config| {
            config.protected_groups = vec!["Break Glass".to_owned()];
            config.protected_users = vec!["boss@example.com".to_owned()];
        });
        let group = GroupNote { id: "00g1".to_owned(), name: "Staff".to_owned(), refused: false, added: false };
        let earlier = Receipt { groups: vec![group], ..Receipt::default() };
        let candidate = Candidate { earlier: earlier.clone(), ..candidate() };
        let Ruling::Pass { call, .. } = judge.rule(&candidate, &Spent::default()) else { panic!() };
        assert_eq!(call.earlier, earlier);
        assert!(call.protects(["00g7", "break glass"]).unwrap().contains("protected_groups"));
        assert!(call.protects_user(["00u7", "BOSS@example.com"]).unwrap().contains("protected_users"));
        assert!(call.protects(["Staff", "00g1"]).is_none() && call.protects_user([LOGIN]).is_none());
        assert!(call.lists_users());
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        let judge = judge(|_| {});
        check(&judge, &Candidate { kind: "okta.user.delete".to_owned(), ..candidate() }, "refuse: there is no action");
        check(&judge, &Candidate { params: "{".to_owned(), ..candidate() }, "refuse: its stored parameters");
    }

    #[test]
    fn a_user_who_was_protected_since_is_refused_by_id_and_by_login() {
        for name in [ID, LOGIN] {
            let judge = judge(|config| config.protected_users = vec![name.to_owned()]);
            assert!(judge.reads_records());
            check(&judge, &candidate(), "refuse: the user");
            check(&judge, &Candidate { approved: true, ..candidate() }, "refuse: the user");
            check(&judge, &message(), "pass");
        }
        assert!(!judge(|_| {}).reads_records());
    }

    #[test]
    fn a_login_that_is_not_on_record_is_asked_for() {
        let by_login = |standings| judge_knowing(|config| config.protected_users = vec![LOGIN.to_owned()], standings);
        let pruned = Candidate { record: None, ..candidate() };
        check(&by_login(Standings::default()), &pruned, &format!("ask: {ID}"));
        let mut ann = Standings::default();
        let standing = Standing { id: Some(ID.to_owned()), login: Some(LOGIN.to_uppercase()), ..Standing::default() };
        ann.read(ID, standing, at(NOW));
        check(&by_login(ann), &pruned, "refuse: the user");
        let mut other = Standings::default();
        let standing =
            Standing { id: Some(ID.to_owned()), login: Some("x@example.com".to_owned()), ..Standing::default() };
        other.read(ID, standing, at(NOW));
        check(&by_login(other), &pruned, "pass");
        // The record of somebody else tells nothing of him.
        let foreign = Candidate { record: Some(record(STRANGER, "x@example.com")), ..candidate() };
        check(&by_login(Standings::default()), &foreign, &format!("ask: {ID}"));
    }

    #[test]
    fn a_user_whom_the_event_is_not_about_is_asked_for_where_the_list_does_not_tell() {
        let other = Candidate { params: json!({"user": STRANGER, "group": "High"}).to_string(), ..candidate() };
        check(
            &judge(|config| config.protected_users = vec!["root@example.com".to_owned()]),
            &other,
            &format!("ask: {STRANGER}"),
        );
        check(&judge(|config| config.protected_users = vec!["00urootrootrootrootr".to_owned()]), &other, "pass");
        let nobody = Candidate { subject: None, record: None, ..other };
        check(
            &judge(|config| config.protected_members_of = vec!["VIP".to_owned()]),
            &nobody,
            &format!("ask: {STRANGER}"),
        );
    }

    #[test]
    fn members_and_admins_are_protected_once_they_are_known() {
        let of = |standing: Standing| {
            let mut standings = Standings::default();
            standings.read(ID, standing, at(NOW));
            judge_knowing(
                |config| {
                    config.protected_members_of = vec!["Break Glass".to_owned()];
                    config.protected_roles = vec!["SUPER_ADMIN".to_owned()];
                },
                standings,
            )
        };
        let none = Standing { id: Some(ID.to_owned()), ..Standing::default() };
        check(&of(none.clone()), &candidate(), "pass");
        let member = Standing { groups: vec!["Staff".to_owned(), "break glass ".to_owned()], ..none.clone() };
        check(&of(member.clone()), &candidate(), "protected_members_of");
        check(&of(member), &Candidate { approved: true, ..candidate() }, "refuse");
        let admin = Standing { roles: vec!["HELP_DESK_ADMIN".to_owned(), "super_admin".to_owned()], ..none.clone() };
        check(&of(admin), &candidate(), "protected_roles");
        check(&of(Standing { roles: vec!["HELP_DESK_ADMIN".to_owned()], ..none }), &candidate(), "pass");
        check(&of(Standing::default()), &message(), "pass");
    }

    #[test]
    fn any_role_protects_when_the_list_says_so() {
        let of = |roles: Vec<String>| {
            let mut standings = Standings::default();
            standings.read(ID, Standing { roles, ..Standing::default() }, at(NOW));
            judge_knowing(|config| config.protected_roles = vec!["any".to_owned()], standings)
        };
        check(&of(vec!["REPORT_ADMIN".to_owned()]), &candidate(), "refuse");
        check(&of(Vec::new()), &candidate(), "pass");
    }

    #[test]
    fn who_cannot_be_read_is_not_passed() {
        let mut standings = Standings::default();
        standings.failed(ID, "403 okta.roles.read".to_owned(), |_| std::time::Duration::from_secs(7), at(NOW));
        let judge = judge_knowing(|config| config.protected_roles = vec!["any".to_owned()], standings);
        check(&judge, &candidate(), "later, 2026-08-24T10:05:07Z: 403 okta.roles.read");
        check(&judge, &Candidate { approved: true, ..candidate() }, "later");
    }

    #[test]
    fn a_stale_change_is_refused_unless_a_person_wants_it() {
        let judge = judge(|config| config.max_event_age = Some(std::time::Duration::from_secs(299)));
        check(&judge, &candidate(), "refuse: the event is 5m old");
        check(&judge, &Candidate { approved: true, ..candidate() }, "pass");
        check(&judge, &message(), "pass");
    }

    #[test]
    fn observe_mode_touches_nothing_whoever_allowed_it() {
        let all = judge(|config| config.mode = Mode::Observe);
        for candidate in [candidate(), message(), Candidate { approved: true, ..candidate() }] {
            check(&all, &candidate, "observe: [guard] mode");
            check(&judge(|_| {}), &Candidate { observe: true, ..candidate }, "observe: its playbook");
        }
        let both = judge(|config| {
            config.mode = Mode::Observe;
            config.protected_users = vec![ID.to_owned()];
        });
        check(&both, &candidate(), "refuse");
    }

    #[test]
    fn the_playbook_is_asked_as_it_is_now() {
        let with = |text: &str| {
            let config: PlaybookConfig = toml::from_str(&format!(
                "name = 'p'\non = ['user.risk.detect']\n{text}[[step]]\nname = 's'\naction = 'okta.user.clear_sessions'\n\
                 approval = {}",
                text.is_empty()
            ))
            .unwrap();
            let playbook = Playbook::compile(&config, &connectors::catalogue()).unwrap();
            let config = GuardConfig { limits: LimitsConfig::unlimited(), ..GuardConfig::default() };
            let guard = Arc::new(Guard::new(&config, []).over(&[playbook]));
            Judge::new(guard, Arc::default(), at(NOW), at(PUBLISHED))
        };
        check(&with("mode = 'observe'\n"), &candidate(), "observe: its playbook");
        check(&with("mode = 'enforce'\n"), &candidate(), "pass");
        for of_any_kind in [candidate(), message()] {
            check(&with(""), &of_any_kind, "hold, approval, trip: false");
            check(&with(""), &Candidate { approved: true, ..of_any_kind }, "pass");
        }
        check(&with(""), &Candidate { step: "t".to_owned(), ..candidate() }, "pass");
        check(&with("mode = 'observe'\n"), &Candidate { playbook: "gone".to_owned(), ..candidate() }, "pass");
    }

    #[test]
    fn over_a_limit_the_playbook_is_stopped_with_an_alarm() {
        let judge = judge(|config| {
            config.limits.overall = Limit::Most(1);
            let with = toml::from_str("channel = '#a'").unwrap();
            config.alarm = Some(AlarmConfig { action: "slack.message.post".to_owned(), with });
        });
        let mut spent = Spent::default();
        spent.record(ActionId(7), "q", "okta.app.unassign_user");
        let Ruling::Hold { reason: "limit", trip: Some(trip), .. } = judge.rule(&candidate(), &spent) else { panic!() };
        assert!(trip.why.contains("overall = 1"), "{}", trip.why);
        assert_eq!(trip.alarm.unwrap().kind, "slack.message.post");
        for passing in
            [message(), Candidate { approved: true, ..candidate() }, Candidate { id: ActionId(7), ..candidate() }]
        {
            assert!(matches!(judge.rule(&passing, &spent), Ruling::Pass { .. }), "{passing:?}");
        }
        assert_eq!(judge.counts_after(), Some(at("2026-08-24T09:05:00Z")));
        assert_eq!(self::judge(|_| {}).counts_after(), None);
    }

    #[test]
    fn nothing_of_a_stopped_playbook_passes_without_a_person_and_nobody_is_asked_for_it() {
        let judge = judge(|config| config.protected_roles = vec!["any".to_owned()]);
        let mut spent = Spent::default();
        spent.stop("p", "too much");
        let ruling = judge.rule(&candidate(), &spent);
        assert!(matches!(&ruling, Ruling::Hold { reason: "limit", why, trip: None } if why.contains("too much")));
        assert!(matches!(judge.rule(&Candidate { approved: true, ..candidate() }, &spent), Ruling::Ask(_)));
        assert!(matches!(judge.rule(&Candidate { playbook: "q".to_owned(), ..candidate() }, &spent), Ruling::Ask(_)));
        assert!(matches!(judge.rule(&message(), &spent), Ruling::Pass { .. }));
    }

    #[test]
    fn a_limit_of_zero_stops_no_playbook() {
        check(&judge(|config| config.limits.overall = Limit::Most(0)), &candidate(), "hold, limit, trip: false");
    }

    proptest! {
        /// Whatever else is so: named in any way, with or without a record, approved or not, protected in any of four ways.
        #[test]
        fn a_protected_user_is_never_passed(
            id in "00u[a-zA-Z0-9]{17}",
            login in "[a-zA-Z.]{1,20}@[a-z]{1,10}\\.com",
            protected_by in 0..4_usize,
            named in 0..5_usize,
            about_him in any::<bool>(),
            on_record in any::<bool>(),
            asked in any::<bool>(),
            approved in any::<bool>(),
            observe in any::<bool>(),
        ) {
            let before_at = login.split('@').next().unwrap().to_owned();
            let ways = [id.clone(), login.clone(), login.to_uppercase(), format!(" {login} "), before_at];
            let mut standings = Standings::default();
            let standing = Standing {
                id: Some(id.clone()),
                login: Some(login.clone()),
                groups: vec!["Everyone".to_owned(), "VIP".to_owned()],
                roles: vec!["ORG_ADMIN".to_owned()],
            };
            if asked {
                for name in &ways {
                    standings.read(name, standing.clone(), at(NOW));
                }
                standings.read(STRANGER, Standing { id: Some(STRANGER.to_owned()), ..Standing::default() }, at(NOW));
            }
            let judge = judge_knowing(|config| match protected_by {
                0 => config.protected_users = vec![id.clone()],
                1 => config.protected_users = vec![login.to_uppercase()],
                2 => config.protected_members_of = vec!["vip".to_owned()],
                _ => config.protected_roles = vec!["org_admin".to_owned()],
            }, standings);
            let (subject, subjects_login) = if about_him { (id.as_str(), login.as_str()) } else { (STRANGER, "bob@example.com") };
            let candidate = Candidate {
                params: json!({"user": ways[named], "group": "x"}).to_string(),
                subject: Some(subject.to_owned()),
                record: on_record.then(|| record(subject, subjects_login)),
                approved,
                observe,
                ..candidate()
            };
            let ruling = judge.rule(&candidate, &Spent::default());
            prop_assert!(!matches!(ruling, Ruling::Pass { .. }), "{:?}", ruling);
            if asked && !observe {
                prop_assert!(matches!(ruling, Ruling::Refuse { .. }), "{:?}", ruling);
            }
        }

        #[test]
        fn no_parameters_make_the_judge_panic(params in any::<String>(), record in any::<String>(), kind in any::<String>()) {
            let judge = judge(|config| config.protected_users = vec![LOGIN.to_owned()]);
            let _ = judge.rule(&Candidate { params, record: Some(record), ..candidate() }, &Spent::default());
            let _ = judge.rule(&Candidate { kind, ..candidate() }, &Spent::default());
        }
    }
}
