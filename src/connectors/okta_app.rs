//! `okta.app.unassign_user`: taking an app away from a user.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::okta_params::{
    Name, RuleManaged, listing, named, parse, parsed, protected, remembered, unchanged, user_receipt,
};
use super::{ActionKind, Call, Connector, Effect, FromEvent, Service, shape};
use crate::guard::Cleared;
use crate::model::escape::Escape;
use crate::model::outcome::{Failure, GroupNote, Outcome, Reason, Receipt, Verdict};
use crate::okta::groups::{GroupRef, OKTA_GROUP};
use crate::okta::rights::Right;
use crate::okta::{OktaClient, OktaError, OktaErrorKind};

/// Takes an app away from a user. His profile in the app is lost, and with provisioning his account there is
/// deactivated. What a group grants cannot be taken away like this; `via_groups` says what is done about it.
pub static UNASSIGN_USER: ActionKind = ActionKind {
    name: "okta.app.unassign_user",
    summary: "Takes an app away from a user",
    service: Service::Okta,
    effect: Effect::SetLike,
    changes_access: true,
    resets_risk: false,
    rights: &[Right::ReadApps, Right::ReadUsers, Right::ChangeAssignments],
    from_event: &[("app", FromEvent::AppId), ("user", FromEvent::UserId)],
    check,
    schema: shape::<Params>,
    escape: |_| Escape::Plain,
    lane: |params| {
        let Params { app, user, .. } = parse(params).ok()?;
        Some(format!("okta.app/{}/{}", app.0, user.0))
    },
};

/// What these parameters need beside the rights of the action: those of the groups, where they are to be changed.
pub fn more_rights(params: &Value) -> &'static [Right] {
    match params.get("via_groups").and_then(Value::as_str) {
        Some("remove" | "restrict") => &[Right::ReadGroups, Right::ChangeMembers],
        _ => &[],
    }
}

/// Performs [`UNASSIGN_USER`].
#[derive(Debug)]
pub struct UnassignUser {
    okta: Arc<OktaClient>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Id.
    app: Name,
    /// Id or login.
    user: Name,
    /// Whether Okta mails the administrators.
    #[serde(default)]
    send_email: bool,
    /// What is done about groups that grant the app.
    #[serde(default)]
    via_groups: ViaGroups,
    /// Name or id of the group to which policies deny the app.
    #[serde(default)]
    restrict_group: Option<Name>,
    /// Whether he may be taken out of a group that a rule put him into.
    #[serde(default)]
    rule_managed: RuleManaged,
}

/// What is done about groups that grant the app.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum ViaGroups {
    /// They are named, and the action fails.
    #[default]
    Report,
    /// The user is taken out of each of them.
    Remove,
    /// The user stays in them, and is put into a group to which policies deny the app.
    Restrict,
}

fn check(params: &Value) -> Result<(), String> {
    let Params { via_groups, restrict_group, .. } = parse(params)?;
    match (via_groups, restrict_group) {
        (ViaGroups::Restrict, None) => Err("via_groups = \"restrict\" needs `restrict_group`".to_owned()),
        (ViaGroups::Report | ViaGroups::Remove, Some(_)) => {
            Err("`restrict_group` is only used with via_groups = \"restrict\"".to_owned())
        }
        _ => Ok(()),
    }
}

/// How a user has an app.
struct Assigned {
    user: String,
    by_group: bool,
}

#[async_trait]
impl Connector for UnassignUser {
    async fn perform(&self, call: &Cleared<Call>) -> Outcome {
        let params: Params = match parsed(&call.params) {
            Ok(params) => params,
            Err(outcome) => return outcome,
        };
        if let Err(why) = check(&call.params) {
            return Outcome::Permanent(Failure::new(Reason::BadParameters, why));
        }
        let Assigned { user, by_group } = match self.assigned(&params).await {
            Ok(Some(assigned)) => assigned,
            Ok(None) if params.via_groups == ViaGroups::Remove && !call.earlier.groups.is_empty() => {
                let names = listing(call.earlier.groups.iter().map(|note| named(&note.name, &note.id)));
                return Outcome::Done(self.receipt(&params, &format!("is no longer assigned, and out of {names}")));
            }
            Ok(None) => return Outcome::AlreadyDone(self.receipt(&params, "is not assigned")),
            Err(error) => return error.to_outcome(false),
        };
        let known = &call.earlier.groups;
        match params.via_groups {
            ViaGroups::Remove if !known.is_empty() => {
                // Once he is out of all of them, an assignment that is still there is one of his own.
                if let Some(outcome) = self.leave_next(call, &user, known).await {
                    return outcome;
                }
            }
            ViaGroups::Remove if by_group => return self.granted(call, &params, &user).await,
            ViaGroups::Restrict if by_group || !known.is_empty() => return self.restrict(call, &params, &user).await,
            _ => {}
        }
        match self.okta.unassign(&params.app.0, &user, params.send_email).await {
            Ok(()) => Outcome::Done(self.receipt(&params, "is no longer assigned")),
            Err(error) if error.kind == OktaErrorKind::NotFound => {
                Outcome::AlreadyDone(self.receipt(&params, "was not assigned any more"))
            }
            Err(error) if error.kind == OktaErrorKind::GrantedByGroup => self.granted(call, &params, &user).await,
            Err(error) => error.to_outcome(true),
        }
    }

    async fn verify(&self, call: &Call) -> Verdict {
        let Ok(params) = parse::<Params>(&call.params) else { return Verdict::CannotTell };
        let user = match self.assigned(&params).await {
            Ok(Some(Assigned { user, .. })) => user,
            Ok(None) => return Verdict::Done(self.receipt(&params, "is not assigned")),
            Err(error) => return error.to_verdict(),
        };
        let (ViaGroups::Restrict, Some(group)) = (params.via_groups, &params.restrict_group) else {
            return Verdict::NotDone;
        };
        let group = match self.okta.resolve_group(&group.0).await {
            Ok(group) => group,
            Err(error) => return error.to_verdict(),
        };
        match self.okta.is_member(&group.id, &user).await {
            Ok(true) => Verdict::Done(self.restricted(&params, &group)),
            Ok(false) => Verdict::NotDone,
            Err(error) => error.to_verdict(),
        }
    }
}

impl UnassignUser {
    /// On this org.
    pub fn new(okta: Arc<OktaClient>) -> Self {
        Self { okta }
    }

    /// How the app is assigned to the user, if it is.
    async fn assigned(&self, params: &Params) -> Result<Option<Assigned>, OktaError> {
        let Some(user) = self.okta.user_id(&params.user.0).await? else { return Ok(None) };
        let assigned = self.okta.app_user(&params.app.0, &user).await?;
        Ok(assigned.map(|assigned| Assigned { by_group: assigned.scope == "GROUP", user }))
    }

    /// A group grants the app, which Okta has said or shown; nothing was changed. What comes next is remembered before it is
    /// done.
    async fn granted(&self, call: &Cleared<Call>, params: &Params, user: &str) -> Outcome {
        if params.via_groups == ViaGroups::Report {
            return Outcome::Permanent(self.granted_by_group(&params.app.0, user).await);
        }
        let granting = match self.granting(&params.app.0, user).await {
            Ok(granting) => granting,
            Err(error) => return error.to_outcome(false),
        };
        if granting.is_empty() {
            let why = format!("Okta says that a group grants app {} to user {user}, and lists none", params.app.0);
            return Outcome::Transient(Failure::new(Reason::GrantedByGroup, why));
        }
        let names = listing(granting.iter().map(|group| named(&group.name, &group.id)));
        if params.via_groups == ViaGroups::Remove {
            if let Some(outcome) = self.hindrance(call, params, user, &granting).await {
                return outcome;
            }
            // The same again: he was taken out of them, and Okta has not caught up.
            if granting.iter().all(|group| call.earlier.groups.iter().any(|note| note.id == group.id)) {
                let why = format!("{names} still grants app {} to user {user}", params.app.0);
                return Outcome::Transient(Failure::new(Reason::GrantedByGroup, why));
            }
        }
        let mut groups = call.earlier.groups.clone();
        groups.extend(granting.iter().map(remembered).filter(|note| !call.earlier.groups.contains(note)));
        Outcome::Progress(Receipt { groups, ..self.receipt(params, &format!("is granted by {names}")) })
    }

    /// Why the user cannot be taken out of all of these groups; then he is taken out of none, because that alone would not
    /// take the app away.
    async fn hindrance(
        &self,
        call: &Cleared<Call>,
        params: &Params,
        user: &str,
        granting: &[GroupRef],
    ) -> Option<Outcome> {
        let app = &params.app.0;
        let told = |group: &GroupRef| named(&group.name, &group.id);
        let stays = |why: String| {
            let why = format!("app {app} is not taken away from user {user}: {why}; {}", unchanged(&call.earlier));
            Some(Outcome::Permanent(Failure::new(Reason::GrantedByGroup, why)))
        };
        if let Some(why) = granting.iter().find_map(|group| call.protects([group.name.as_str(), group.id.as_str()])) {
            return Some(protected(why, &call.earlier));
        }
        if let Some(group) = granting.iter().find(|group| group.kind != OKTA_GROUP) {
            return stays(format!("{} grants it, and its members come from elsewhere ({})", told(group), group.kind));
        }
        if params.rule_managed == RuleManaged::Report {
            let rules = match self.okta.group_rules().await {
                Ok(rules) => rules,
                Err(error) => return Some(error.to_outcome(false)),
            };
            let by_rule = granting.iter().find_map(|group| {
                let rule = rules.iter().find(|rule| rule.may_hold(user, &group.id))?;
                Some(format!(
                    "{} grants it, and the group rule `{}` may manage his membership; rule_managed = \"remove\" has him \
                     excluded from the rule",
                    told(group),
                    super::cut(&rule.name, 60)
                ))
            });
            if let Some(why) = by_rule {
                return stays(why);
            }
        }
        None
    }

    /// Takes the user out of the next of the groups that are remembered; `None` when he is in none of them any more.
    async fn leave_next(&self, call: &Cleared<Call>, user: &str, known: &[GroupNote]) -> Option<Outcome> {
        let groups = match self.okta.user_groups(user).await {
            Ok(groups) => groups,
            Err(error) => return Some(error.to_outcome(false)),
        };
        let open: Vec<_> = groups.iter().filter(|group| known.iter().any(|note| note.id == group.id)).collect();
        let (group, rest) = open.split_first()?;
        if let Some(why) = call.protects([group.name.as_str(), group.id.as_str()]) {
            return Some(protected(why, &call.earlier));
        }
        Some(match self.okta.remove_member(&group.id, user).await {
            Ok(()) => {
                let name = named(&group.name, &group.id);
                let note = format!("is out of {name}, which granted it; {} more to leave", rest.len());
                Outcome::Progress(user_receipt(&self.okta, user, note))
            }
            Err(error) if error.kind == OktaErrorKind::NotFound => Outcome::Transient(error.to_failure()),
            Err(error) => error.to_outcome(true),
        })
    }

    /// Puts the user into the group to which policies deny the app.
    async fn restrict(&self, call: &Cleared<Call>, params: &Params, user: &str) -> Outcome {
        let Some(name) = &params.restrict_group else {
            return Outcome::Permanent(Failure::new(Reason::BadParameters, "there is no `restrict_group`"));
        };
        let group = match self.okta.resolve_group(&name.0).await {
            Ok(group) => group,
            Err(error) => return error.to_outcome(),
        };
        if let Some(why) = call.protects([group.name.as_str(), group.id.as_str()]) {
            return protected(why, &call.earlier);
        }
        match self.okta.is_member(&group.id, user).await {
            Ok(true) => return Outcome::AlreadyDone(self.restricted(params, &group)),
            Ok(false) => {}
            Err(error) => return error.to_outcome(false),
        }
        match self.okta.add_member(&group.id, user).await {
            Ok(()) => Outcome::Done(self.restricted(params, &group)),
            Err(error) if error.kind == OktaErrorKind::NotFound => Outcome::Transient(error.to_failure()),
            Err(error) => error.to_outcome(true),
        }
    }

    /// The groups of the user that the app is assigned to.
    async fn granting(&self, app: &str, user: &str) -> Result<Vec<GroupRef>, OktaError> {
        let mut of_user = self.okta.user_groups(user).await?;
        let of_app = self.okta.app_groups(app).await?;
        of_user.retain(|group| of_app.contains(&group.id));
        Ok(of_user)
    }

    /// Names the groups that grant the app, as far as they can be read: they are what has to change.
    async fn granted_by_group(&self, app: &str, user: &str) -> Failure {
        let granting = self.granting(app, user).await.unwrap_or_default();
        let groups = match granting.is_empty() {
            true => "which could not be read".to_owned(),
            false => listing(granting.iter().map(|group| named(&group.name, &group.id))),
        };
        let detail = format!(
            "app {app} cannot be taken away from user {user} while a group grants it: {groups}; via_groups = \"remove\" \
             takes the user out of it, via_groups = \"restrict\" puts him into a group to which policies deny the app"
        );
        Failure::new(Reason::GrantedByGroup, detail)
    }

    fn restricted(&self, params: &Params, group: &GroupRef) -> Receipt {
        let name = named(&group.name, &group.id);
        self.receipt(params, &format!("is granted by a group and stays assigned; the user is in {name}"))
    }

    /// An app's own page needs a name that is not at hand; the user's page lists his apps.
    fn receipt(&self, params: &Params, note: &str) -> Receipt {
        Receipt {
            id: Some(params.app.0.clone()),
            url: self.okta.admin_link(["admin", "user", "profile", "view", &params.user.0]),
            ..Receipt::note(note)
        }
    }
}

#[cfg(test)]
mod tests {
    use mockito::{Matcher, Server, ServerGuard};
    use serde_json::json;

    use super::*;
    use crate::config::GuardConfig;
    use crate::guard::Guard;
    use crate::model::ids::IdempotencyKey;
    use crate::okta::testing::{APP, USER, answers, client, error_body, group};

    fn call() -> Cleared<Call> {
        let params = json!({"app": APP, "user": USER});
        Cleared::unguarded(Call {
            key: IdempotencyKey::derive("okta", "u", "p", "s"),
            params,
            attempt: 1,
            earlier: Receipt::default(),
        })
    }

    fn assignment() -> String {
        format!("/api/v1/apps/{APP}/users/{USER}")
    }

    async fn org(assigned: bool) -> ServerGuard {
        let mut server = Server::new_async().await;
        let (status, body) = match assigned {
            true => (200, json!({"id": USER, "scope": "USER", "status": "ACTIVE"})),
            false => {
                (404, json!({"errorCode": "E0000007", "errorSummary": "Not found: Resource not found: x (AppUser)"}))
            }
        };
        answers(&mut server, "GET", &assignment(), status, &body).await;
        server
    }

    fn connector(server: &ServerGuard) -> UnassignUser {
        UnassignUser::new(Arc::new(client(&server.url())))
    }

    #[tokio::test]
    async fn an_assignment_is_taken_away_without_mail() {
        let mut server = org(true).await;
        let change = server.mock("DELETE", assignment().as_str()).match_query("sendEmail=false");
        let change = change.with_status(204).create_async().await;
        let Outcome::Done(receipt) = connector(&server).perform(&call()).await else { panic!("not done") };
        assert_eq!(receipt.id.as_deref(), Some(APP));
        change.assert_async().await;
    }

    #[tokio::test]
    async fn what_is_not_assigned_is_done_already() {
        let mut server = org(false).await;
        let change = server.mock("DELETE", Matcher::Any).expect(0).create_async().await;
        assert!(matches!(connector(&server).perform(&call()).await, Outcome::AlreadyDone(_)));
        change.assert_async().await;

        let mut server = org(true).await;
        server.mock("DELETE", Matcher::Any).with_status(404).create_async().await;
        assert!(matches!(connector(&server).perform(&call()).await, Outcome::AlreadyDone(_)));
    }

    #[tokio::test]
    async fn groups_that_grant_the_app_are_named() {
        let mut server = org(true).await;
        let body = error_body("E0000046", "Deactivate application for user forbidden.");
        server.mock("DELETE", Matcher::Any).with_status(403).with_body(body).create_async().await;
        let unread = connector(&server).perform(&call()).await;
        let Outcome::Permanent(failure) = unread else { panic!("not permanent") };
        assert!(failure.detail.contains("could not be read"), "{failure}");

        let groups = json!([group("00ga", "Staff", "OKTA_GROUP"), group("00gb", "Finance", "OKTA_GROUP")]);
        answers(&mut server, "GET", &format!("/api/v1/users/{USER}/groups"), 200, &groups).await;
        let grants = json!([{"id": "00gb", "priority": 0}, {"id": "00gc"}]);
        answers(&mut server, "GET", &format!("/api/v1/apps/{APP}/groups"), 200, &grants).await;
        let Outcome::Permanent(failure) = connector(&server).perform(&call()).await else { panic!("not permanent") };
        assert_eq!(failure.reason, Reason::GrantedByGroup);
        assert!(failure.detail.contains("`Finance` (00gb)") && !failure.detail.contains("Staff"), "{failure}");
    }

    const FINANCE: &str = "00g0000000000000fina";
    const DENIED: &str = "00g0000000000000deny";

    /// An org in which a group grants the app, one of a kind, and a rule may manage it. The user is in it, or in another.
    async fn granting(scope: &str, kind: &str, by_rule: bool, member_of: &str) -> ServerGuard {
        let mut server = Server::new_async().await;
        let assigned = json!({"id": USER, "scope": scope, "status": "ACTIVE"});
        answers(&mut server, "GET", &assignment(), 200, &assigned).await;
        let (finance, denied) = (group(FINANCE, "Finance", kind), group(DENIED, "Denied", "OKTA_GROUP"));
        let his: Vec<_> = [&finance, &denied].into_iter().filter(|group| group["id"] == member_of).collect();
        answers(&mut server, "GET", &format!("/api/v1/users/{USER}/groups"), 200, &json!(his)).await;
        answers(&mut server, "GET", &format!("/api/v1/groups/{DENIED}"), 200, &denied).await;
        answers(&mut server, "GET", &format!("/api/v1/apps/{APP}/groups"), 200, &json!([{"id": FINANCE}])).await;
        let groups: &[&str] = if by_rule { &[FINANCE] } else { &[] };
        let rules =
            json!([{"name": "staff", "status": "ACTIVE", "actions": {"assignUserToGroups": {"groupIds": groups}}}]);
        answers(&mut server, "GET", "/api/v1/groups/rules", 200, &rules).await;
        let body = error_body("E0000046", "Deactivate application for user forbidden.");
        let refused = server.mock("DELETE", assignment().as_str()).match_query(Matcher::Any).with_status(403);
        refused.with_body(body).expect_at_least(0).create_async().await;
        server
    }

    fn via(params: Value, earlier: &[GroupNote]) -> Call {
        let mut whole = json!({"app": APP, "user": USER});
        whole.as_object_mut().unwrap().extend(params.as_object().unwrap().clone());
        let earlier = Receipt { groups: earlier.to_vec(), ..Receipt::default() };
        Call { key: IdempotencyKey::derive("okta", "u", "p", "s"), params: whole, attempt: 1, earlier }
    }

    async fn attempt(server: &ServerGuard, params: Value, earlier: &[GroupNote]) -> Outcome {
        connector(server).perform(&Cleared::unguarded(via(params, earlier))).await
    }

    fn remove() -> Value {
        json!({"via_groups": "remove"})
    }

    fn restrict() -> Value {
        json!({"via_groups": "restrict", "restrict_group": DENIED})
    }

    #[tokio::test]
    async fn he_is_taken_out_of_the_groups_that_grant_the_app_when_the_step_says_so() {
        for scope in ["GROUP", "USER"] {
            let mut server = granting(scope, "OKTA_GROUP", false, FINANCE).await;
            let left = server.mock("DELETE", format!("/api/v1/groups/{FINANCE}/users/{USER}").as_str());
            let left = left.with_status(204).expect(1).create_async().await;
            let Outcome::Progress(receipt) = attempt(&server, remove(), &[]).await else { panic!("{scope}") };
            assert!(!left.matched_async().await, "what is left is remembered first");
            assert_eq!(receipt.groups.len(), 1);
            assert!(matches!(attempt(&server, remove(), &receipt.groups).await, Outcome::Progress(_)));
            left.assert_async().await;
            // Okta has not caught up, then it has: what is left is an assignment of his own, or none.
            let mut server = granting("USER", "OKTA_GROUP", false, "").await;
            assert!(matches!(attempt(&server, remove(), &receipt.groups).await, Outcome::Transient(_)));
            let own = server.mock("DELETE", assignment().as_str()).match_query(Matcher::Any).with_status(204);
            let own = own.create_async().await;
            assert!(matches!(attempt(&server, remove(), &receipt.groups).await, Outcome::Done(_)));
            own.assert_async().await;
            let gone = org(false).await;
            let Outcome::Done(end) = attempt(&gone, remove(), &receipt.groups).await else { panic!("not done") };
            assert!(end.note.unwrap().contains("`Finance`"));
        }
    }

    #[tokio::test]
    async fn where_he_cannot_leave_every_group_he_leaves_none() {
        let config = GuardConfig { protected_groups: vec!["Finance".to_owned()], ..GuardConfig::default() };
        for (kind, by_rule, words) in
            [("APP_GROUP", false, "come from elsewhere"), ("OKTA_GROUP", true, "group rule `staff`")]
        {
            let mut server = granting("GROUP", kind, by_rule, FINANCE).await;
            let change = server.mock("DELETE", Matcher::Regex("/groups/".to_owned())).expect(0).create_async().await;
            let outcome = attempt(&server, remove(), &[]).await;
            let Outcome::Permanent(Failure { reason: Reason::GrantedByGroup, detail }) = outcome else {
                panic!("{outcome:?}")
            };
            assert!(detail.contains(words), "{detail}");
            change.assert_async().await;
        }
        let by_rule = granting("GROUP", "OKTA_GROUP", true, FINANCE).await;
        let all = json!({"via_groups": "remove", "rule_managed": "remove"});
        assert!(matches!(attempt(&by_rule, all, &[]).await, Outcome::Progress(_)));
        let server = granting("GROUP", "OKTA_GROUP", false, FINANCE).await;
        let finance = GroupNote { id: FINANCE.to_owned(), name: "Finance".to_owned(), refused: false };
        for earlier in [&[][..], &[finance]] {
            let call = Cleared::under(Guard::new(&config, []), via(remove(), earlier));
            let outcome = connector(&server).perform(&call).await;
            assert!(
                matches!(outcome, Outcome::Permanent(Failure { reason: Reason::Protected, .. })),
                "{earlier:?}: {outcome:?}"
            );
        }
    }

    #[tokio::test]
    async fn he_is_restricted_where_the_step_says_so_and_keeps_his_groups() {
        let mut server = granting("GROUP", "OKTA_GROUP", false, FINANCE).await;
        let add = server.mock("PUT", format!("/api/v1/groups/{DENIED}/users/{USER}").as_str()).with_status(204);
        let add = add.expect(2).create_async().await;
        assert!(matches!(attempt(&server, restrict(), &[]).await, Outcome::Done(_)));
        assert_eq!(connector(&server).verify(&via(restrict(), &[])).await, Verdict::NotDone);
        // Assigned in person as well: only Okta's refusal tells of the group.
        let direct = granting("USER", "OKTA_GROUP", false, FINANCE).await;
        let Outcome::Progress(receipt) = attempt(&direct, restrict(), &[]).await else { panic!("no progress") };
        assert!(matches!(attempt(&server, restrict(), &receipt.groups).await, Outcome::Done(_)));
        add.assert_async().await;
        let there = granting("GROUP", "OKTA_GROUP", false, DENIED).await;
        assert!(matches!(attempt(&there, restrict(), &[]).await, Outcome::AlreadyDone(_)));
        assert!(matches!(connector(&there).verify(&via(restrict(), &[])).await, Verdict::Done(_)));
    }

    #[test]
    fn what_is_done_about_groups_is_checked_and_needs_its_rights() {
        let check = |params: Value| (UNASSIGN_USER.check)(&via(params, &[]).params);
        assert!(check(remove()).is_ok() && check(restrict()).is_ok() && check(json!({})).is_ok());
        assert!(check(json!({"via_groups": "restrict"})).unwrap_err().contains("restrict_group"));
        assert!(check(json!({"restrict_group": "x"})).is_err() && check(json!({"via_groups": "all"})).is_err());
        assert_eq!(more_rights(&remove()), [Right::ReadGroups, Right::ChangeMembers]);
        assert!(more_rights(&json!({})).is_empty() && more_rights(&json!({"via_groups": "report"})).is_empty());
    }

    #[tokio::test]
    async fn a_doubt_is_settled_by_reading() {
        let mut server = org(true).await;
        server.mock("DELETE", Matcher::Any).with_status(504).create_async().await;
        assert!(matches!(connector(&server).perform(&call()).await, Outcome::Unknown(_)));
        assert_eq!(connector(&server).verify(&call()).await, Verdict::NotDone);
        assert!(matches!(connector(&org(false).await).verify(&call()).await, Verdict::Done(_)));
        let mut forbidden = Server::new_async().await;
        forbidden.mock("GET", Matcher::Any).with_status(403).create_async().await;
        assert_eq!(connector(&forbidden).verify(&call()).await, Verdict::CannotTell);
    }

    #[test]
    fn parameters_are_checked() {
        assert!((UNASSIGN_USER.check)(&call().params).is_ok());
        assert_eq!((UNASSIGN_USER.lane)(&call().params), Some(format!("okta.app/{APP}/{USER}")));
        for bad in
            [json!({"app": "", "user": "u"}), json!({"app": "a"}), json!({"app": "a", "user": "u", "mail": true})]
        {
            assert!((UNASSIGN_USER.check)(&bad).is_err(), "{bad}");
        }
    }
}
