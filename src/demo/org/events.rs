//! Builders of System Log events in Okta's true shapes (Okta OpenAPI, schema `LogEvent`; Identity Threat Protection
//! event types). They carry neither `uuid` nor `published`: the log adds what is missing when they are pushed.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::directory::{App, Group, User};
use super::governance::AccessReview;

/// Id of the principal that Okta itself acts as.
pub const SYSTEM_PRINCIPAL: &str = "spr0sim0system0000d7";

/// `user.risk.detect`, with the risk only as the Java map string in `debugContext.debugData.risk`. The system is the
/// actor and the user the target.
pub fn risk_detected(user: &User, previous: &str, level: &str) -> Value {
    RiskDetected { previous, level, detection: "Okta Threat Intelligence", reasons: &["Okta Threat Intelligence"] }
        .event(user, system())
}

/// The same with the structured twin in `securityContext.risk` filled as well.
pub fn risk_detected_structured(user: &User, previous: &str, level: &str) -> Value {
    let mut event = risk_detected(user, previous, level);
    let risk = json!({
        "level": level, "previousLevel": previous, "detectionName": "Okta Threat Intelligence", "issuer": "OKTA",
        "reasons": ["Okta Threat Intelligence"],
    });
    set(&mut event, &["securityContext", "risk"], risk);
    event
}

/// `application.user_membership.add`: an administrator assigned the app.
pub fn app_assigned(app: &App, user: &User) -> Value {
    app_membership(app, user, administrator(), true)
}

/// `application.user_membership.remove`: an administrator took the app away.
pub fn app_removed(app: &App, user: &User) -> Value {
    app_membership(app, user, administrator(), false)
}

/// `group.user_membership.add` by an administrator.
pub fn group_added(group: &Group, user: &User) -> Value {
    group_membership(group, user, administrator(), true)
}

/// `group.user_membership.remove` by an administrator.
pub fn group_removed(group: &Group, user: &User) -> Value {
    group_membership(group, user, administrator(), false)
}

/// `user.session.clear`: an administrator ended the user's sessions.
pub fn user_cleared_sessions(user: &User) -> Value {
    sessions_cleared(user, administrator())
}

/// `user.session.start`: a sign-in that Okta rated. The user is the actor, and there is no target, as with Okta.
pub fn sign_in(user: &User, risk_level: &str) -> Value {
    let reasons = if risk_level == "LOW" { "" } else { "reasons=Anomalous Device, Anomalous Location, " };
    Record {
        event_type: "user.session.start",
        legacy: Some("core.user_auth.login_success"),
        message: "User login to Okta",
        severity: "INFO",
        actor: principal(user),
        targets: Value::Null,
        debug: json!({
            "risk": format!("{{{reasons}level={risk_level}}}"),
            "behaviors": "{New Geo-Location=NEGATIVE, New Device=POSITIVE, New IP=POSITIVE, New State=NEGATIVE, New Country=NEGATIVE, Velocity=NEGATIVE, New City=NEGATIVE}",
            "logOnlySecurityData": format!("{{\"risk\":{{\"level\":\"{risk_level}\"}},\"behaviors\":{{\"New Geo-Location\":\"NEGATIVE\",\"New Device\":\"POSITIVE\",\"New IP\":\"POSITIVE\",\"New State\":\"NEGATIVE\",\"New Country\":\"NEGATIVE\",\"Velocity\":\"NEGATIVE\",\"New City\":\"NEGATIVE\"}}}}"),
            "threatSuspected": "false",
            "requestUri": "/idp/idx/identify",
            "url": "/idp/idx/identify?",
        }),
        by_browser: true,
    }
    .event()
}

/// `user.authentication.sso`: the user opened an app.
pub fn single_sign_on(app: &App, user: &User) -> Value {
    Record {
        event_type: "user.authentication.sso",
        legacy: Some("core.user_auth.sso"),
        message: "User single sign on to app",
        severity: "INFO",
        actor: principal(user),
        targets: json!([app_instance(app), app_user(app, user)]),
        debug: json!({
            "initiationType": "SP_INITIATED", "signOnMode": "SAML 2.0", "threatSuspected": "false",
            "authnRequestId": "req0sim0authn00000000000", "requestUri": "/app/sample/sso/saml",
            "url": "/app/sample/sso/saml?",
        }),
        by_browser: true,
    }
    .event()
}

/// `policy.evaluate_sign_on`: a sign-on policy was evaluated.
pub fn policy_evaluated(app: &App, user: &User) -> Value {
    Record {
        event_type: "policy.evaluate_sign_on",
        legacy: None,
        message: "Evaluation of sign-on policy",
        severity: "INFO",
        actor: principal(user),
        targets: json!([
            {"id": app.id, "type": "AppInstance", "alternateId": app.label, "displayName": app.label,
             "detailEntry": {"signOnModeType": "SAML_2_0", "signOnModeEvaluationResult": "AUTHENTICATED"}},
            {"id": "rul0sim0default000d7", "type": "Rule", "alternateId": "unknown", "displayName": "Catch-all Rule",
             "detailEntry": {"policyRuleFactorMode": "2FA"}},
        ]),
        debug: json!({
            "risk": "{level=LOW}", "threatSuspected": "false",
            "behaviors": "{New Geo-Location=NEGATIVE, New Device=NEGATIVE, New IP=NEGATIVE, New State=NEGATIVE, New Country=NEGATIVE, Velocity=NEGATIVE, New City=NEGATIVE}",
            "requestUri": "/idp/idx/challenge/answer", "url": "/idp/idx/challenge/answer?",
        }),
        by_browser: true,
    }
    .event()
}

/// The event with another actor.
pub fn acted_by(mut event: Value, user: &User) -> Value {
    set(&mut event, &["actor"], principal(user));
    event
}

/// The event at a given moment; a moment before those already in the log makes it a late event.
pub fn published_at(mut event: Value, published: Timestamp) -> Value {
    set(&mut event, &["published"], Value::from(format!("{published:.3}")));
    event
}

pub(super) struct RiskDetected<'a> {
    pub(super) previous: &'a str,
    pub(super) level: &'a str,
    pub(super) detection: &'a str,
    pub(super) reasons: &'a [&'a str],
}

impl RiskDetected<'_> {
    pub(super) fn event(&self, user: &User, actor: Value) -> Value {
        let Self { previous, level, detection, .. } = self;
        let reasons = self.reasons.join(", ");
        Record {
            event_type: "user.risk.detect",
            legacy: None,
            message: "User risk detected",
            severity: if *level == "LOW" { "INFO" } else { "WARN" },
            actor,
            targets: json!([principal(user)]),
            debug: json!({
                "risk": format!(
                    "{{previousLevel={previous}, level={level}, detectionName={detection}, reasons={reasons}, issuer=OKTA}}"
                ),
                "traceId": "5d1c0d3e-7f0b-4c55-9a57-3f5b0f6f6c10",
            }),
            by_browser: false,
        }
        .event()
    }
}

pub(super) fn app_membership(app: &App, user: &User, actor: Value, added: bool) -> Value {
    Record {
        event_type: if added { "application.user_membership.add" } else { "application.user_membership.remove" },
        legacy: Some(if added {
            "app.generic.provision.assign_user_to_app"
        } else {
            "app.generic.provision.deactivate_user_from_app"
        }),
        message: if added { "Add user to application membership" } else { "Remove user's application membership" },
        severity: "INFO",
        actor,
        targets: json!([app_user(app, user), app_instance(app), principal(user)]),
        debug: json!({
            "requestUri": format!("/api/v1/apps/{}/users/{}", app.id, user.id),
            "url": format!("/api/v1/apps/{}/users/{}?", app.id, user.id),
            "appname": "sample_saml",
            "threatSuspected": "false",
        }),
        by_browser: true,
    }
    .event()
}

pub(super) fn group_membership(group: &Group, user: &User, actor: Value, added: bool) -> Value {
    let target = json!({
        "id": group.id, "type": "UserGroup", "alternateId": "unknown", "displayName": group.name, "detailEntry": null,
    });
    Record {
        event_type: if added { "group.user_membership.add" } else { "group.user_membership.remove" },
        legacy: Some(if added { "core.user_group_member.user_add" } else { "core.user_group_member.user_remove" }),
        message: if added { "Add user to group membership" } else { "Remove user from group membership" },
        severity: "INFO",
        actor,
        targets: json!([principal(user), target]),
        debug: json!({
            "requestUri": format!("/api/v1/groups/{}/users/{}", group.id, user.id),
            "url": format!("/api/v1/groups/{}/users/{}?", group.id, user.id),
            "threatSuspected": "false",
        }),
        by_browser: true,
    }
    .event()
}

pub(super) fn sessions_cleared(user: &User, actor: Value) -> Value {
    Record {
        event_type: "user.session.clear",
        legacy: Some("core.user_auth.session_clear"),
        message: "Clear user session",
        severity: "INFO",
        actor,
        targets: json!([principal(user)]),
        debug: json!({
            "requestUri": format!("/api/v1/users/{}/sessions", user.id),
            "url": format!("/api/v1/users/{}/sessions?", user.id),
            "threatSuspected": "false",
        }),
        by_browser: true,
    }
    .event()
}

/// An event about a user that only its type and its words tell apart from others.
pub(super) fn about_user(event_type: &'static str, message: &'static str, user: &User, actor: Value) -> Value {
    Record {
        event_type,
        legacy: None,
        message,
        severity: "INFO",
        actor,
        targets: json!([principal(user)]),
        debug: json!({"requestUri": format!("/api/v1/users/{}", user.id), "threatSuspected": "false"}),
        by_browser: true,
    }
    .event()
}

/// An event about a device of a user, such as `device.lifecycle.suspend`, as Okta tells it of devices.
pub fn about_device(event_type: &'static str, device: &str, user: &User) -> Value {
    let target = json!({
        "id": device, "type": "UDDevice", "alternateId": "unknown", "displayName": "a device",
        "detailEntry": {"oktaDeviceId": device},
    });
    Record {
        event_type,
        legacy: None,
        message: "Something about a device",
        severity: "INFO",
        actor: principal(user),
        targets: json!([principal(user), target]),
        debug: json!({"threatSuspected": "false"}),
        by_browser: true,
    }
    .event()
}

/// An event of Identity Governance about the review of a user's access.
pub(super) fn about_review(
    event_type: &'static str,
    message: &'static str,
    review: &AccessReview,
    user: &User,
    actor: Value,
    debug: Value,
    result: &str,
) -> Value {
    let kind = if review.is_campaign() { "CertificationCampaign" } else { "SecurityAccessReview" };
    let target = json!({
        "id": review.id, "type": kind, "alternateId": review.name, "displayName": review.name, "detailEntry": null,
    });
    let targets = json!([target, principal(user)]);
    let record =
        Record { event_type, legacy: None, message, severity: "INFO", actor, targets, debug, by_browser: false };
    let mut event = record.event();
    set(&mut event, &["outcome", "result"], Value::from(result));
    event
}

/// Okta itself as an actor.
pub(super) fn system() -> Value {
    json!({
        "id": SYSTEM_PRINCIPAL, "type": "SystemPrincipal", "alternateId": "system@okta.com",
        "displayName": "Okta System", "detailEntry": null,
    })
}

/// A user as an actor or target.
pub(super) fn principal(user: &User) -> Value {
    json!({
        "id": user.id, "type": "User", "alternateId": user.login, "displayName": user.display_name(),
        "detailEntry": null,
    })
}

fn administrator() -> Value {
    json!({
        "id": "00u0sim0admin00000d7", "type": "User", "alternateId": "admin@example.com",
        "displayName": "Sim Admin", "detailEntry": null,
    })
}

fn app_instance(app: &App) -> Value {
    json!({
        "id": app.id, "type": "AppInstance", "alternateId": app.label, "displayName": app.label, "detailEntry": null,
    })
}

fn app_user(app: &App, user: &User) -> Value {
    json!({
        "id": app.user_id(&user.id), "type": "AppUser", "alternateId": user.login,
        "displayName": user.display_name(), "detailEntry": null,
    })
}

struct Record {
    event_type: &'static str,
    legacy: Option<&'static str>,
    message: &'static str,
    severity: &'static str,
    actor: Value,
    targets: Value,
    debug: Value,
    /// Whether a person's client was behind it. What Okta does by itself is a job without a client and an address.
    by_browser: bool,
}

impl Record {
    fn event(self) -> Value {
        let place = json!({
            "city": "San Jose", "state": "California", "country": "United States", "postalCode": "95113",
            "geolocation": {"lat": 37.3387, "lon": -121.8853},
        });
        let (client, chain, security) = if self.by_browser {
            (
                json!({
                    "userAgent": {
                        "rawUserAgent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
                        "os": "Linux", "browser": "CHROME",
                    },
                    "zone": "null", "device": "Computer", "id": null, "ipAddress": "203.0.113.24",
                    "geographicalContext": place,
                }),
                json!([{"ip": "203.0.113.24", "geographicalContext": place, "version": "V4", "source": null}]),
                json!({"asNumber": 64496, "asOrg": "example networks", "isp": "example isp", "domain": "example.net", "isProxy": false}),
            )
        } else {
            (
                json!({
                    "userAgent": null, "zone": null, "device": null, "id": null, "ipAddress": null,
                    "geographicalContext": null,
                }),
                json!([]),
                json!({"asNumber": null, "asOrg": null, "isp": null, "domain": null, "isProxy": null}),
            )
        };
        json!({
            "actor": self.actor,
            "client": client,
            "device": null,
            "authenticationContext": {
                "authenticationProvider": null, "credentialProvider": null, "credentialType": null, "issuer": null,
                "interface": null, "authenticationStep": 0, "rootSessionId": null,
                "externalSessionId": if self.by_browser { "102sim0session00000000000" } else { "unknown" },
            },
            "displayMessage": self.message,
            "eventType": self.event_type,
            "outcome": {"result": "SUCCESS", "reason": null},
            "securityContext": security,
            "severity": self.severity,
            "debugContext": {"debugData": self.debug},
            "legacyEventType": self.legacy,
            "transaction": {
                "type": if self.by_browser { "WEB" } else { "JOB" }, "id": "req0sim0transaction00000", "detail": {},
            },
            "version": "0",
            "request": {"ipChain": chain},
            "target": self.targets,
        })
    }
}

/// Sets a nested member, making the objects on the way.
pub(super) fn set(value: &mut Value, path: &[&str], member: Value) {
    let Some((first, rest)) = path.split_first() else {
        *value = member;
        return;
    };
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    if let Some(object) = value.as_object_mut() {
        set(object.entry(*first).or_insert(Value::Null), rest, member);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_risk_event_names_the_system_as_actor_and_the_user_as_target() {
        let event = risk_detected_structured(&User::new("Ada", "Lovelace"), "LOW", "HIGH");
        assert_eq!(event["actor"]["type"], "SystemPrincipal");
        assert_eq!(event["target"][0]["alternateId"], "ada.lovelace@example.com");
        assert_eq!(event["securityContext"]["risk"]["previousLevel"], "LOW");
        assert_eq!(
            event["debugContext"]["debugData"]["risk"],
            "{previousLevel=LOW, level=HIGH, detectionName=Okta Threat Intelligence, \
             reasons=Okta Threat Intelligence, issuer=OKTA}"
        );
    }

    #[test]
    fn a_late_event_keeps_its_own_moment() {
        let event = published_at(sign_in(&User::new("A", "B"), "LOW"), "2026-01-02T03:04:05Z".parse().unwrap());
        assert_eq!(event["published"], "2026-01-02T03:04:05.000Z");
    }
}
