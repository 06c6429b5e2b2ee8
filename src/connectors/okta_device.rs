//! `okta.device.suspend`, `unsuspend` and `deactivate`: the device of the event, or all devices of a user.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::okta_params::{Name, listing, named, no_such_user, parse, parsed, protected};
use super::{ActionKind, Call, Connector, Effect, FromEvent, Service, shape};
use crate::guard::Cleared;
use crate::model::escape::Escape;
use crate::model::outcome::{Failure, Outcome, Reason, Receipt, Verdict};
use crate::okta::devices::{Device, DeviceChange};
use crate::okta::rights::Right;
use crate::okta::{OktaClient, OktaError, OktaErrorKind};

/// Suspends devices: they count for nothing at sign-in, for whoever uses them.
pub static SUSPEND: ActionKind = ActionKind {
    name: "okta.device.suspend",
    summary: "Suspends the event's device, or all devices of a user",
    service: Service::Okta,
    effect: Effect::SetLike,
    changes_access: true,
    resets_risk: false,
    rights: &[Right::ReadUsers, Right::ReadDevices, Right::ChangeDevices],
    from_event: &[("device", FromEvent::DeviceId), ("user", FromEvent::UserId)],
    check,
    schema: shape::<Params>,
    escape: |_| Escape::Plain,
    lane,
};

/// The way back from [`SUSPEND`].
pub static UNSUSPEND: ActionKind = ActionKind {
    name: "okta.device.unsuspend",
    summary: "Ends the suspension of the event's device, or of all devices of a user",
    ..SUSPEND
};

/// Deactivates devices. Their links to users and their certificates are lost; they have to be enrolled anew.
pub static DEACTIVATE: ActionKind = ActionKind {
    name: "okta.device.deactivate",
    summary: "Deactivates the event's device, or all devices of a user, for good",
    ..SUSPEND
};

/// What an action does to a device's status.
#[derive(Debug)]
struct Rule {
    change: DeviceChange,
    to: &'static str,
    /// The known statuses in which Okta does not do it.
    never: &'static [&'static str],
    done: &'static str,
}

static SUSPENDING: Rule =
    Rule { change: DeviceChange::Suspend, to: "SUSPENDED", never: &["DEACTIVATED"], done: "suspended" };
static UNSUSPENDING: Rule = Rule {
    change: DeviceChange::Unsuspend,
    to: "ACTIVE",
    never: &["CREATED", "DEACTIVATED"],
    done: "no longer suspended",
};
static DEACTIVATING: Rule =
    Rule { change: DeviceChange::Deactivate, to: "DEACTIVATED", never: &[], done: "deactivated" };

/// Performs one of the actions of this file.
#[derive(Debug)]
pub struct ChangeDevices {
    okta: Arc<OktaClient>,
    rule: &'static Rule,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Id; filled from the event unless `devices` is there.
    #[serde(default)]
    device: Option<Name>,
    /// All of the user's.
    #[serde(default)]
    devices: Option<Which>,
    /// Id or login.
    user: Name,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Which {
    All,
}

fn check(params: &Value) -> Result<(), String> {
    match parse(params)? {
        Params { device: Some(_), devices: Some(_), .. } => {
            Err("`device` and `devices` are both there; write one of them".to_owned())
        }
        Params { device: None, devices: None, .. } => {
            Err("neither `device` nor `devices = \"all\"` is there".to_owned())
        }
        _ => Ok(()),
    }
}

/// All three actions share it. A single device and all devices of its user do not: which ones those are is not known here.
fn lane(params: &Value) -> Option<String> {
    Some(match parse(params).ok()? {
        Params { device: Some(device), .. } => format!("okta.device/{}", device.0),
        Params { user, .. } => format!("okta.device/all/{}", user.0),
    })
}

/// The devices that are asked for.
enum Found {
    /// Those that there are.
    Devices(Vec<Device>),
    NoSuchUser,
    NoSuchDevice,
}

#[async_trait]
impl Connector for ChangeDevices {
    async fn perform(&self, call: &Cleared<Call>) -> Outcome {
        let params: Params = match parsed(&call.params) {
            Ok(params) => params,
            Err(outcome) => return outcome,
        };
        if let Err(why) = check(&call.params) {
            return Outcome::Permanent(Failure::new(Reason::BadParameters, why));
        }
        let devices = match self.found(&params).await {
            Ok(Found::Devices(devices)) => devices,
            Ok(Found::NoSuchUser) => return no_such_user(&params.user.0),
            Ok(Found::NoSuchDevice) => {
                let why = "there is no such device in Okta (any more)";
                return Outcome::Permanent(Failure::new(Reason::NotFound, why));
            }
            Err(error) => return error.to_outcome(false),
        };
        let (is_single, mut kept) = (params.device.is_some(), Vec::new());
        let mut open = Vec::new();
        for device in devices.iter().filter(|device| device.status != self.rule.to) {
            if self.rule.never.contains(&device.status.as_str()) {
                if is_single {
                    let why = format!("device {} is {}, so this cannot be done to it", told(device), device.status);
                    return Outcome::Permanent(Failure::new(Reason::Conflict, why));
                }
                continue;
            }
            open.push(device);
        }
        // Each attempt begins with another one, so that one that Okta refuses keeps the others waiting no longer than that.
        let turn = (call.attempt as usize).saturating_sub(1).checked_rem(open.len()).unwrap_or_default();
        open.rotate_left(turn);
        // It is changed for everybody who uses it, so everybody's protection holds.
        let mut next = None;
        let mut rest = open.len();
        for device in open {
            rest -= 1;
            match self.protection(call, device).await {
                Ok(None) => {
                    next = Some(device);
                    break;
                }
                Ok(Some(why)) if is_single => return protected(why, &call.earlier),
                Ok(Some(_)) => kept.push(told(device)),
                Err(error) => return error.to_outcome(false),
            }
        }
        let done = self.rule.done;
        let kept = match kept.is_empty() {
            true => String::new(),
            false => format!("; left alone, because somebody or something in it is protected: {}", listing(kept)),
        };
        let Some(device) = next else {
            let note = match (devices.as_slice(), call.attempt) {
                ([], _) => "there are no devices".to_owned(),
                (_, 1) => format!("nothing is left that could be {done}{kept}"),
                _ => format!("all that can be are {done}{kept}"),
            };
            return Outcome::AlreadyDone(Receipt::note(note));
        };
        match self.okta.change_device(&device.id, self.rule.change).await {
            Ok(()) if rest == 0 => {
                let note = format!("{} is {done}{kept}", told(device));
                Outcome::Done(Receipt { id: Some(device.id.clone()), ..Receipt::note(note) })
            }
            Ok(()) => Outcome::Progress(Receipt::note(format!("{} is {done}; {rest} more", told(device)))),
            // It is gone since the list was read, or in no state for this: that must not save the others.
            Err(error) if !is_single && (error.kind == OktaErrorKind::NotFound || rest > 0 && is_about_it(&error)) => {
                Outcome::Transient(error.to_failure())
            }
            Err(error) => error.to_outcome(true),
        }
    }

    async fn verify(&self, call: &Call) -> Verdict {
        let Ok(params) = parse::<Params>(&call.params) else { return Verdict::CannotTell };
        match self.found(&params).await {
            Ok(Found::Devices(devices)) => {
                let reached = |device: &Device| {
                    device.status == self.rule.to || self.rule.never.contains(&device.status.as_str())
                };
                match devices.iter().all(reached) {
                    true => Verdict::Done(Receipt::note(format!("all that can be are {}", self.rule.done))),
                    false => Verdict::NotDone,
                }
            }
            Ok(Found::NoSuchUser | Found::NoSuchDevice) => Verdict::NotDone,
            Err(error) => error.to_verdict(),
        }
    }
}

impl ChangeDevices {
    /// [`SUSPEND`] on this org.
    pub fn suspend(okta: Arc<OktaClient>) -> Self {
        Self { okta, rule: &SUSPENDING }
    }

    /// [`UNSUSPEND`] on this org.
    pub fn unsuspend(okta: Arc<OktaClient>) -> Self {
        Self { okta, rule: &UNSUSPENDING }
    }

    /// [`DEACTIVATE`] on this org.
    pub fn deactivate(okta: Arc<OktaClient>) -> Self {
        Self { okta, rule: &DEACTIVATING }
    }

    async fn found(&self, params: &Params) -> Result<Found, OktaError> {
        if let Some(device) = &params.device {
            let device = self.okta.device(&device.0).await?;
            return Ok(device.map_or(Found::NoSuchDevice, |device| Found::Devices(vec![device])));
        }
        let Some(user) = self.okta.user_id(&params.user.0).await? else { return Ok(Found::NoSuchUser) };
        match self.okta.user_devices(&user).await {
            Ok(devices) => Ok(Found::Devices(devices)),
            Err(error) if error.kind == OktaErrorKind::NotFound => Ok(Found::NoSuchUser),
            Err(error) => Err(error),
        }
    }

    /// Why a device must not be touched: it is protected itself, or one of its users is, by id or login.
    async fn protection(&self, call: &Cleared<Call>, device: &Device) -> Result<Option<String>, OktaError> {
        if let Some(why) = call.protects([device.id.as_str()]) {
            return Ok(Some(why));
        }
        if !call.lists_users() {
            return Ok(None);
        }
        let users = self.okta.device_users(&device.id).await?;
        Ok(users
            .iter()
            .find_map(|user| call.protects_user([user.id.as_str()].into_iter().chain(user.login.as_deref()))))
    }
}

/// Whether Okta says no to this one device, and not to us.
fn is_about_it(error: &OktaError) -> bool {
    matches!(error.kind, OktaErrorKind::BadRequest | OktaErrorKind::WrongStatus)
}

fn told(device: &Device) -> String {
    named(&device.profile.display_name, &device.id)
}

#[cfg(test)]
mod tests {
    use mockito::{Matcher, Mock, Server, ServerGuard};
    use serde_json::json;

    use super::*;
    use crate::config::GuardConfig;
    use crate::guard::Guard;
    use crate::model::ids::IdempotencyKey;
    use crate::okta::testing::{USER, answers, client};

    const PHONE: &str = "guo0000000000000phon";
    const LAPTOP: &str = "guo0000000000000lapt";

    fn call(params: Value) -> Call {
        Call { key: IdempotencyKey::derive("okta", "u", "p", "s"), params, attempt: 1, earlier: Receipt::default() }
    }

    fn single() -> Value {
        json!({"device": PHONE, "user": USER})
    }

    fn all() -> Value {
        json!({"devices": "all", "user": USER})
    }

    /// An org in which the user has a phone and a laptop of these statuses, and the laptop is somebody else's as well.
    async fn org(phone: &str, laptop: &str) -> ServerGuard {
        let mut server = Server::new_async().await;
        let device = |id: &str, status: &str| json!({"id": id, "status": status, "profile": {"displayName": "x"}});
        let (phone, laptop) = (device(PHONE, phone), device(LAPTOP, laptop));
        answers(&mut server, "GET", &format!("/api/v1/devices/{PHONE}"), 200, &phone).await;
        let links = json!([{"device": phone}, {"device": laptop}]);
        answers(&mut server, "GET", &format!("/api/v1/users/{USER}/devices"), 200, &links).await;
        let user = |id: &str, login: &str| json!({"user": {"id": id, "profile": {"login": login}}});
        let own = json!([user(USER, "ann@example.com")]);
        answers(&mut server, "GET", &format!("/api/v1/devices/{PHONE}/users"), 200, &own).await;
        let shared = json!([user(USER, "ann@example.com"), user("00uboss", "boss@example.com")]);
        answers(&mut server, "GET", &format!("/api/v1/devices/{LAPTOP}/users"), 200, &shared).await;
        server
    }

    async fn takes(server: &mut ServerGuard, device: &str, word: &str) -> Mock {
        let path = format!("/api/v1/devices/{device}/lifecycle/{word}");
        server.mock("POST", path.as_str()).with_status(204).create_async().await
    }

    fn suspending(server: &ServerGuard) -> ChangeDevices {
        ChangeDevices::suspend(Arc::new(client(&server.url())))
    }

    /// The outcome of suspending the phone, for its status.
    async fn came_to(status: &str, build: fn(Arc<OktaClient>) -> ChangeDevices, word: &str) -> &'static str {
        let mut server = org(status, "ACTIVE").await;
        takes(&mut server, PHONE, word).await;
        match build(Arc::new(client(&server.url()))).perform(&Cleared::unguarded(call(single()))).await {
            Outcome::Done(_) => "done",
            Outcome::AlreadyDone(_) => "already",
            Outcome::Permanent(Failure { reason: Reason::Conflict, .. }) => "conflict",
            other => panic!("{status}: {other:?}"),
        }
    }

    #[tokio::test]
    async fn every_status_of_a_device_has_its_answer() {
        let statuses = ["CREATED", "ACTIVE", "SUSPENDED", "DEACTIVATED"];
        for (build, word, expected) in [
            (ChangeDevices::suspend as fn(_) -> _, "suspend", ["done", "done", "already", "conflict"]),
            (ChangeDevices::unsuspend, "unsuspend", ["conflict", "already", "done", "conflict"]),
            (ChangeDevices::deactivate, "deactivate", ["done", "done", "done", "already"]),
        ] {
            for (status, expected) in statuses.into_iter().zip(expected) {
                assert_eq!(came_to(status, build, word).await, expected, "{word}, {status}");
            }
        }
    }

    #[tokio::test]
    async fn all_devices_are_changed_one_in_each_attempt() {
        let mut server = org("ACTIVE", "ACTIVE").await;
        let phone = takes(&mut server, PHONE, "suspend").await;
        let outcome = suspending(&server).perform(&Cleared::unguarded(call(all()))).await;
        assert!(matches!(outcome, Outcome::Progress(_)), "{outcome:?}");
        phone.assert_async().await;
        let mut server = org("SUSPENDED", "ACTIVE").await;
        let laptop = takes(&mut server, LAPTOP, "suspend").await;
        assert_eq!(suspending(&server).verify(&call(all())).await, Verdict::NotDone);
        assert!(matches!(suspending(&server).perform(&Cleared::unguarded(call(all()))).await, Outcome::Done(_)));
        laptop.assert_async().await;
        let server = org("SUSPENDED", "DEACTIVATED").await;
        assert!(matches!(suspending(&server).verify(&call(all())).await, Verdict::Done(_)));
        assert!(matches!(suspending(&server).perform(&Cleared::unguarded(call(all()))).await, Outcome::AlreadyDone(_)));
    }

    #[tokio::test]
    async fn a_device_that_okta_refuses_to_change_or_that_is_gone_saves_no_other() {
        for status in [400, 404] {
            let mut server = org("ACTIVE", "ACTIVE").await;
            let path = format!("/api/v1/devices/{PHONE}/lifecycle/suspend");
            server.mock("POST", path.as_str()).with_status(status).with_body("{}").create_async().await;
            let laptop = takes(&mut server, LAPTOP, "suspend").await;
            let attempt = async |attempt| {
                let call = Call { attempt, ..call(all()) };
                suspending(&server).perform(&Cleared::unguarded(call)).await
            };
            assert!(matches!(attempt(1).await, Outcome::Transient(_)), "{status}");
            assert!(matches!(attempt(2).await, Outcome::Progress(_)), "{status}");
            laptop.assert_async().await;
        }
        // When nothing else is left it is told.
        let mut server = org("ACTIVE", "SUSPENDED").await;
        server.mock("POST", Matcher::Any).with_status(400).with_body("{}").create_async().await;
        let outcome = suspending(&server).perform(&Cleared::unguarded(call(all()))).await;
        assert!(matches!(outcome, Outcome::Permanent(_)), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_device_that_a_protected_user_shares_is_left_alone() {
        let config = GuardConfig { protected_users: vec!["boss@example.com".to_owned()], ..GuardConfig::default() };
        let guarded = |params| Cleared::under(Guard::new(&config, []), call(params));
        let mut server = org("SUSPENDED", "ACTIVE").await;
        let change = server.mock("POST", Matcher::Any).expect(0).create_async().await;
        let Outcome::AlreadyDone(receipt) = suspending(&server).perform(&guarded(all())).await else { panic!() };
        assert!(receipt.note.unwrap().contains(LAPTOP));
        let laptop = json!({"id": LAPTOP, "status": "ACTIVE"});
        answers(&mut server, "GET", &format!("/api/v1/devices/{LAPTOP}"), 200, &laptop).await;
        let outcome = suspending(&server).perform(&guarded(json!({"device": LAPTOP, "user": USER}))).await;
        assert!(matches!(outcome, Outcome::Permanent(Failure { reason: Reason::Protected, .. })), "{outcome:?}");
        change.assert_async().await;
    }

    #[tokio::test]
    async fn what_is_not_there_is_permanent() {
        let mut server = Server::new_async().await;
        answers(&mut server, "GET", &format!("/api/v1/devices/{PHONE}"), 404, &json!({})).await;
        let outcome = suspending(&server).perform(&Cleared::unguarded(call(single()))).await;
        assert!(matches!(outcome, Outcome::Permanent(Failure { reason: Reason::NotFound, .. })), "{outcome:?}");
    }

    #[test]
    fn parameters_name_one_device_or_all() {
        for kind in [&SUSPEND, &UNSUSPEND, &DEACTIVATE] {
            assert!((kind.check)(&single()).is_ok() && (kind.check)(&all()).is_ok());
            assert_eq!((kind.lane)(&single()), Some(format!("okta.device/{PHONE}")));
            assert_eq!((kind.lane)(&all()), Some(format!("okta.device/all/{USER}")));
            for bad in [
                json!({"user": USER}),
                json!({"device": PHONE}),
                json!({"device": PHONE, "devices": "all", "user": USER}),
                json!({"devices": "some", "user": USER}),
            ] {
                assert!((kind.check)(&bad).is_err(), "{}: {bad}", kind.name);
            }
        }
    }
}
