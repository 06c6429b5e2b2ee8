//! What Okta is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::named::{self, Named};
use super::{Row, Rows};
use crate::app;
use crate::app::rights::{self, Need, RISK_EVENTS};
use crate::cli::{moment, now};
use crate::config::load::Loaded;
use crate::config::secret::SecretEnv;
use crate::connectors::probe::Finding;
use crate::engine::wanted_types;
use crate::model::outcome::{Failure, Reason};
use crate::okta::auth::{AuthError, Granted};
use crate::okta::budget::BucketSnapshot;
use crate::okta::groups::GroupError;
use crate::okta::logs::{LogQuery, filter_for};
use crate::okta::rights::Right;
use crate::okta::users::AdminRole;
use crate::okta::{OktaClient, OktaError, OktaErrorKind};

/// Clocks that are further apart are told.
const SKEW: SignedDuration = SignedDuration::from_secs(30);

/// How far back events of risk are looked for.
const RISK_SINCE: SignedDuration = SignedDuration::from_hours(89 * 24);

/// Asks everything that Okta can tell without being changed.
pub(super) async fn ask<T: FnMut(&Row) -> io::Result<()>>(
    rows: &mut Rows<T>,
    loaded: &Loaded,
    env: &SecretEnv,
    okta: &Arc<OktaClient>,
) -> io::Result<()> {
    let Some(signed_in) = sign_in(rows, loaded, env, okta).await? else {
        return rows.add(Finding::note("rest of Okta", "not asked: every question would have the same answer"));
    };
    let needs = rights::needs(loaded);
    let SignedIn { okta, who, scopes } = signed_in;
    let okta = &*okta;
    let asker = Asker { loaded, okta, needs: &needs, scopes };
    rows.ask("Okta log", asker.log()).await?;
    let roles = match &who {
        Who::Owner(id) => rows.hear(okta.user_roles(id)).await,
        // Without the scope the answer is known.
        Who::App(id) if asker.lacks(Right::ReadRoles).is_none() => rows.hear(okta.client_roles(id)).await,
        Who::App(_) => {
            rows.add(own_roles_unread(&needs, "not asked for: that needs okta.roles.read"))?;
            None
        }
        Who::Unknown => None,
    };
    let roles = roles.as_ref().map(|roles| roles.as_deref());
    if rights::wants_risk_events(loaded) {
        rows.ask("risk events", async { vec![asker.risk_events(roles.and_then(Result::ok)).await] }).await?;
    }
    if let Some(roles) = roles {
        rows.add(own_roles(&needs, roles))?;
        if !loaded.config.guard.protected_roles.is_empty() {
            rows.add(protected_roles(loaded, roles))?;
        }
    }
    if asker.needs(Right::ReadRisk) {
        rows.ask("user risk", async { vec![asker.user_risk(&who).await] }).await?;
    }
    let mut ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, group) in named::groups(loaded) {
        let about = format!("group {name}");
        if let Some(why) = asker.lacks(Right::ReadGroups) {
            rows.add(Finding::note(about, why))?;
            continue;
        }
        let Some(found) = rows.hear(okta.find_group(&name)).await else {
            rows.add(super::late(&about))?;
            continue;
        };
        if let Ok(found) = &found {
            ids.entry(found.id.clone()).or_default().insert(name);
        }
        rows.add(asker.group(about, &group, found))?;
    }
    for (id, names) in ids.into_iter().filter(|(_, names)| names.len() > 1) {
        rows.add(written_twice(&id, &names))?;
    }
    for user in &loaded.config.guard.protected_users {
        rows.ask(&format!("user {user}"), async { vec![asker.user(user).await] }).await?;
    }
    for (id, app) in named::apps(loaded) {
        rows.ask(&format!("app {id}"), async { asker.app(&id, &app).await }).await?;
    }
    rows.add(rate(&okta.gate().snapshot().buckets, loaded.config.okta.rate_share))
}

/// How Okta took us.
struct SignedIn {
    /// With as many of the scopes as there are.
    okta: Arc<OktaClient>,
    who: Who,
    /// The scopes that a service app has; `None` for an API token, which has none.
    scopes: Option<BTreeSet<String>>,
}

enum Who {
    /// The owner of an API token.
    Owner(String),
    /// A service app.
    App(String),
    /// Okta did not say.
    Unknown,
}

/// Signs in and tells about it; `None` when Okta cannot be asked anything.
async fn sign_in<T: FnMut(&Row) -> io::Result<()>>(
    rows: &mut Rows<T>,
    loaded: &Loaded,
    env: &SecretEnv,
    okta: &Arc<OktaClient>,
) -> io::Result<Option<SignedIn>> {
    const ABOUT: &str = "Okta token";
    let Some(granted) = rows.hear(okta.granted()).await else {
        rows.add(super::late(ABOUT))?;
        return Ok(None);
    };
    match granted {
        Ok(Some(granted)) => {
            let kept = Arc::clone(okta);
            of_app(rows, loaded, kept, &granted).map(Some)
        }
        Err(error) if is_about_scopes(&error) => {
            let Some(scopes) = rows.hear(grantable(loaded, env)).await else {
                rows.add(super::late(ABOUT))?;
                return Ok(None);
            };
            let lesser = app::okta_client_with(loaded, env, scopes).map(Arc::new);
            let granted = match &lesser {
                Ok(lesser) => rows.hear(lesser.granted()).await,
                Err(_) => None,
            };
            match (lesser, granted) {
                (Ok(lesser), Some(Ok(Some(granted)))) => of_app(rows, loaded, lesser, &granted).map(Some),
                _ => {
                    rows.add(failed(ABOUT, &error))?;
                    let client_id = loaded.config.okta.client_id.as_deref().unwrap_or_default();
                    scope_rows(rows, loaded, client_id, &[])?;
                    Ok(None)
                }
            }
        }
        Err(error) => {
            rows.add(failed(ABOUT, &error))?;
            Ok(None)
        }
        Ok(None) => match rows.hear(okta.me()).await {
            Some(Ok(me)) => {
                let told = format!("an API token of {}", me.login.unwrap_or_else(|| me.id.clone()));
                rows.add(Finding::fine(ABOUT, told))?;
                Ok(Some(SignedIn { okta: Arc::clone(okta), who: Who::Owner(me.id), scopes: None }))
            }
            Some(Err(error)) => {
                let rest = !answers_everything(&error);
                rows.add(failed(ABOUT, &error))?;
                Ok(rest.then(|| SignedIn { okta: Arc::clone(okta), who: Who::Unknown, scopes: None }))
            }
            None => {
                rows.add(super::late(ABOUT))?;
                Ok(None)
            }
        },
    }
}

/// Whether Okta gives no token because of the scopes: some are not there in the org, or none is granted.
fn is_about_scopes(error: &OktaError) -> bool {
    match error.auth() {
        Some(AuthError::InvalidScope { .. }) => true,
        Some(AuthError::Refused { code, .. }) => code == "consent_required",
        _ => false,
    }
}

/// Tells what a service app was given, scope by scope.
fn of_app<T: FnMut(&Row) -> io::Result<()>>(
    rows: &mut Rows<T>,
    loaded: &Loaded,
    okta: Arc<OktaClient>,
    granted: &Granted,
) -> io::Result<SignedIn> {
    let Granted { client_id, dpop, lifetime, scopes } = granted;
    let bound = if *dpop { "bound to a key of ours (DPoP)" } else { "a bearer token (no DPoP)" };
    let lives = moment::span(*lifetime);
    rows.add(Finding::fine("Okta token", format!("of the service app {client_id}, {bound}, lives {lives}")))?;
    scope_rows(rows, loaded, client_id, scopes)?;
    let scopes = Some(scopes.iter().cloned().collect());
    Ok(SignedIn { okta, who: Who::App(client_id.clone()), scopes })
}

/// A row for each scope that is needed.
fn scope_rows<T: FnMut(&Row) -> io::Result<()>>(
    rows: &mut Rows<T>,
    loaded: &Loaded,
    client_id: &str,
    scopes: &[String],
) -> io::Result<()> {
    for Need { right, purposes } in rights::needs(loaded) {
        let scope = right.scope();
        let about = format!("scope {scope}");
        rows.add(if scopes.iter().any(|granted| granted == scope) {
            Finding::fine(about, format!("granted, to {right}"))
        } else {
            let detail = format!("not granted; needed to {right}, for {}", purposes.join("; "));
            Finding::failed(about, Failure::new(Reason::Forbidden, detail))
                .remedy(format!("grant {scope} on the page \"Okta API Scopes\" of the app {client_id}"))
        })?;
    }
    Ok(())
}

/// The scopes of those needed that Okta gives, each asked for by itself.
async fn grantable(loaded: &Loaded, env: &SecretEnv) -> BTreeSet<String> {
    let mut granted = BTreeSet::new();
    for scope in rights::scopes(loaded) {
        let Ok(single) = app::okta_client_with(loaded, env, [scope.clone()].into()) else { continue };
        let refused = match single.granted().await {
            Ok(_) => false,
            // Trouble that passes says nothing of the scope.
            Err(error) => error.auth().is_none_or(|error| error.passing().is_none()),
        };
        if !refused {
            granted.insert(scope);
        }
    }
    granted
}

struct Asker<'a> {
    loaded: &'a Loaded,
    okta: &'a OktaClient,
    needs: &'a [Need],
    scopes: Option<BTreeSet<String>>,
}

impl Asker<'_> {
    /// Why a question is not worth asking: the token has not got the scope for it, which is no failure here. Where the
    /// daemon needs it, its own row says so.
    fn lacks(&self, right: Right) -> Option<String> {
        let scope = right.scope();
        match &self.scopes {
            Some(scopes) if !scopes.contains(scope) && self.needs(right) => Some(format!("not asked without {scope}")),
            Some(scopes) if !scopes.contains(scope) => {
                Some(format!("not looked up: that needs {scope}, which nothing else in this configuration needs"))
            }
            _ => None,
        }
    }

    fn needs(&self, right: Right) -> bool {
        self.needs.iter().any(|need| need.right == right)
    }

    /// The log itself, and the clock of its answer.
    async fn log(&self) -> Vec<Finding> {
        if let Some(why) = self.lacks(Right::ReadLog) {
            return vec![Finding::note("Okta log", why)];
        }
        let wanted = wanted_types(&self.loaded.playbooks, &self.loaded.config.risk);
        let filter = filter_for(&wanted, self.loaded.config.poll.max_filter_types);
        let head = async |filter| {
            let query = LogQuery { since: now(), until: None, filter, limit: 1 };
            self.okta.fetch_page(&self.okta.logs_url(&query)?).await
        };
        let (head, words) = match head(filter).await {
            Err(error) if error.kind == OktaErrorKind::FilterRefused => {
                (head(None).await, "can be read; Okta refuses the filter, which is applied here instead")
            }
            head => (head, "can be read"),
        };
        match head {
            Ok(head) => vec![Finding::fine("Okta log", words), clocks(head.date.duration_since(now()))],
            Err(error) => vec![refused(failed("Okta log", &error), Right::ReadLog)],
        }
    }

    async fn risk_events(&self, roles: Option<&[AdminRole]>) -> Finding {
        const ABOUT: &str = "risk events";
        if let Some(why) = self.lacks(Right::ReadLog) {
            return Finding::note(ABOUT, why);
        }
        let types = RISK_EVENTS.map(str::to_owned).into();
        let since = now().checked_sub(RISK_SINCE).unwrap_or(Timestamp::UNIX_EPOCH);
        let is_direct = |role: &AdminRole| role.kind == "SUPER_ADMIN" && role.assigned.as_deref() != Some("GROUP");
        match self.okta.newest_event(&types, since).await {
            Ok(Some(newest)) => Finding::fine(ABOUT, format!("visible; the newest is of {newest}")),
            Ok(None) if roles.is_some_and(|roles| roles.iter().any(is_direct)) => Finding::fine(
                ABOUT,
                "none in 90 days; a directly assigned super administrator, as we are, is shown all",
            ),
            Ok(None) => Finding::note(
                ABOUT,
                "none in 90 days: there were none, or they are not shown to us. In an org without Identity Threat \
                 Protection (Adaptive MFA only) a directly assigned super administrator alone is shown them",
            ),
            Err(error) => refused(failed(ABOUT, &error), Right::ReadLog),
        }
    }

    /// Whether the risk of users can be read: that of the token's owner is as good as any.
    async fn user_risk(&self, who: &Who) -> Finding {
        const ABOUT: &str = "user risk";
        if let Some(why) = self.lacks(Right::ReadRisk) {
            return Finding::note(ABOUT, why);
        }
        let Who::Owner(own_id) = who else {
            return Finding::note(ABOUT, "not tried: a service app has no risk of its own that could be read");
        };
        match self.okta.user_risk(own_id).await {
            Ok(_) => Finding::fine(ABOUT, "can be read"),
            Err(error) => refused(failed(ABOUT, &error), Right::ReadRisk),
        }
    }

    fn group(&self, about: String, named: &Named, found: Result<crate::okta::groups::GroupRef, GroupError>) -> Finding {
        let places = named.places.join("; ");
        match found {
            Ok(group) if named.changed && !group.is_ours() => {
                let remedy = "name a group that was made in Okta; an app owns the members of an imported group, and Okta \
                              those of a built-in one";
                let error = GroupError::NotOurs { group };
                Finding::failed(about, Failure::new(Reason::Rejected, format!("{error} ({places})"))).remedy(remedy)
            }
            Ok(group) => Finding::fine(about, format!("{} ({}), for {places}", group.id, group.kind)),
            Err(GroupError::Okta { source, .. }) => refused(failed(about, &source), Right::ReadGroups),
            Err(error) => Finding::failed(about, Failure::new(Reason::NotFound, format!("{error} ({places})")))
                .and_remedy(error.remedy()),
        }
    }

    async fn user(&self, name: &str) -> Finding {
        let about = format!("user {name}");
        if let Some(why) = self.lacks(Right::ReadUsers) {
            return Finding::note(about, why);
        }
        match self.okta.user_id(name).await {
            Ok(Some(id)) => Finding::fine(about, format!("{id}, protected")),
            Ok(None) => {
                let detail = format!("there is no user `{name}`, so this protects nobody");
                Finding::failed(about, Failure::new(Reason::NotFound, detail))
                    .remedy("correct or remove it in [guard] protected_users")
            }
            Err(error) => refused(failed(about, &error), Right::ReadUsers),
        }
    }

    async fn app(&self, id: &str, named: &Named) -> Vec<Finding> {
        let about = format!("app {id}");
        let places = named.places.join("; ");
        if let Some(why) = self.lacks(Right::ReadApps) {
            return vec![Finding::note(about, why)];
        }
        let app = match self.okta.app(id).await {
            Ok(Some(app)) => app,
            Ok(None) => {
                let detail = format!("there is no app `{id}` ({places})");
                return vec![
                    Finding::failed(about, Failure::new(Reason::NotFound, detail))
                        .remedy("the id stands in the address of the app's page in the admin console"),
                ];
            }
            Err(error) => return vec![refused(failed(about, &error), Right::ReadApps)],
        };
        let mut findings = vec![if app.status == "ACTIVE" {
            Finding::fine(about.clone(), format!("{}, for {places}", app.label))
        } else {
            Finding::note(about.clone(), format!("{} is {}, for {places}", app.label, app.status))
        }];
        if named.changed {
            let about = format!("{about}: groups");
            findings.push(match self.okta.app_groups(id).await {
                Ok(groups) if groups.is_empty() => Finding::fine(about, "assigned through no group"),
                Ok(groups) => {
                    let remedy =
                        "take users out of those groups with okta.group.remove_user, or deny the app by policy";
                    let detail = format!(
                        "assigned through {}: from their members okta.app.unassign_user cannot take it",
                        crate::cli::table::plural(groups.len() as u64, "group")
                    );
                    Finding::note(about, detail).remedy(remedy)
                }
                Err(error) => refused(failed(about, &error), Right::ReadApps),
            });
        }
        findings
    }
}

/// Whether Okta cannot be asked anything more.
fn answers_everything(error: &OktaError) -> bool {
    use OktaErrorKind::{Connect, NoCredential, Timeout, Unauthorized};
    matches!(error.kind, Connect | NoCredential | Timeout | Unauthorized)
}

/// What Okta says to a question, with what to do about it.
fn failed(about: impl Into<String>, error: &OktaError) -> Finding {
    let finding = Finding::failed(about, error.to_failure());
    finding.and_remedy(error.remedy())
}

/// A refusal with the role that would lift it.
fn refused(finding: Finding, right: Right) -> Finding {
    if finding.grade != crate::connectors::probe::Grade::Failed(Reason::Forbidden) {
        return finding;
    }
    let permissions = right.permissions();
    let custom = match permissions {
        [] => String::new(),
        some => format!(", or a custom role with {}", some.join(" and ")),
    };
    finding.remedy(format!("to {right}, grant {}{custom}", right.role().label))
}

fn clocks(ahead: SignedDuration) -> Finding {
    const ABOUT: &str = "clock";
    let apart = moment::span(ahead.unsigned_abs());
    if ahead.abs() <= SKEW {
        return Finding::fine(
            ABOUT,
            if ahead.as_secs() == 0 { "as Okta's".to_owned() } else { format!("{apart} from Okta's") },
        );
    }
    let way = if ahead.is_positive() { "behind" } else { "ahead of" };
    Finding::note(
        ABOUT,
        format!("this host's clock is {apart} {way} Okta's; the daemon goes by Okta's where it matters"),
    )
    .remedy("let the host keep its time by NTP")
}

/// What Okta grants a minute, in each bucket that was asked anything of.
fn rate(heard: &[BucketSnapshot], share: f64) -> Finding {
    const ABOUT: &str = "Okta rate";
    let bucket = |heard: &BucketSnapshot| {
        let limit = heard.limit?;
        let ours = (f64::from(limit) * share).floor().max(1.0);
        let left = heard.remaining.map(|left| format!(", {left} left")).unwrap_or_default();
        Some(format!("{} {limit}{left}, ours {ours}", heard.bucket))
    };
    let buckets: Vec<String> = heard.iter().filter_map(bucket).collect();
    if buckets.is_empty() {
        return Finding::note(ABOUT, "Okta has sent no rate headers");
    }
    Finding::fine(ABOUT, format!("requests a minute: {}", buckets.join("; ")))
}

/// What our own admin roles allow that reading does not show.
fn own_roles(needs: &[Need], roles: Result<&[AdminRole], &OktaError>) -> Finding {
    const ABOUT: &str = "Okta admin role";
    let changes: Vec<Right> =
        needs.iter().map(|need| need.right).filter(|right| !enough_for(*right).is_empty()).collect();
    let roles = match roles {
        Ok([]) => return own_roles_unread(needs, "Okta tells of none that we have"),
        Ok(roles) => roles,
        Err(error) if error.kind == OktaErrorKind::Forbidden => {
            return own_roles_unread(needs, "which we have, only those may read who may view roles");
        }
        Err(error) => return own_roles_unread(needs, &format!("could not be read ({error})")),
    };
    let ours: Vec<&str> = roles.iter().map(|role| role.label.as_deref().unwrap_or(&role.kind)).collect();
    let ours = ours.join(", ");
    let lacks: Vec<Right> = changes
        .into_iter()
        .filter(|right| !roles.iter().any(|role| enough_for(*right).contains(&role.kind.as_str())))
        .collect();
    if lacks.is_empty() {
        return Finding::fine(ABOUT, format!("{ours}, as far as its targets reach"));
    }
    let words: Vec<String> = lacks.iter().map(ToString::to_string).collect();
    let remedies: BTreeSet<_> = lacks.iter().map(|right| right.role().label).collect();
    let remedy = format!("grant {}", remedies.into_iter().collect::<Vec<_>>().join(" and "));
    if roles.iter().any(|role| role.kind == "CUSTOM") {
        let detail = format!("{ours}: whether that lets us {} cannot be told without doing it", words.join(" and "));
        return Finding::note(ABOUT, detail);
    }
    let detail = format!("{ours}: that does not let us {}", words.join(" or "));
    Finding::failed(ABOUT, Failure::new(Reason::Forbidden, detail)).remedy(remedy)
}

fn own_roles_unread(needs: &[Need], why: &str) -> Finding {
    let wanted: BTreeSet<_> = needs.iter().map(|need| need.right.role().label).collect();
    Finding::note("Okta admin role", format!("{why}; needed: {}", wanted.into_iter().collect::<Vec<_>>().join("; ")))
}

/// The standard roles that allow a change (Okta help, "Standard administrator roles and permissions"); empty for rights to
/// read, which reading shows.
fn enough_for(right: Right) -> &'static [&'static str] {
    match right {
        Right::ChangeMembers => &["SUPER_ADMIN", "ORG_ADMIN", "USER_ADMIN", "GROUP_MEMBERSHIP_ADMIN"],
        Right::ChangeAssignments => &["SUPER_ADMIN", "ORG_ADMIN", "APP_ADMIN"],
        Right::EndSessions | Right::ChangeCredentials => &["SUPER_ADMIN", "ORG_ADMIN", "USER_ADMIN", "HELP_DESK_ADMIN"],
        Right::ChangeStatus => &["SUPER_ADMIN", "ORG_ADMIN", "USER_ADMIN"],
        Right::LogOut | Right::ChangeRisk | Right::ChangeDevices => &["SUPER_ADMIN", "ORG_ADMIN"],
        Right::StartReviews => &["SUPER_ADMIN"],
        Right::RunCampaigns => &["SUPER_ADMIN", "ACCESS_CERTIFICATIONS_ADMIN"],
        Right::ReadLog
        | Right::ReadUsers
        | Right::ReadRoles
        | Right::ReadRisk
        | Right::ReadGroups
        | Right::ReadApps
        | Right::ReadDevices
        | Right::ReadReviews
        | Right::ReadCampaigns => &[],
    }
}

/// Whether admin roles can be read, and which of the protected ones can only be custom roles.
fn protected_roles(loaded: &Loaded, roles: Result<&[AdminRole], &OktaError>) -> Finding {
    const ABOUT: &str = "protected roles";
    if let Err(error) = roles {
        return refused(failed(ABOUT, error), Right::ReadRoles);
    }
    let is_standard = |role: &&String| STANDARD_ROLES.iter().any(|known| known.eq_ignore_ascii_case(role.trim()));
    let (_, other): (Vec<_>, Vec<_>) = loaded.config.guard.protected_roles.iter().partition(is_standard);
    if other.is_empty() {
        return Finding::fine(ABOUT, "can be read");
    }
    let names: Vec<_> = other.iter().map(|name| format!("`{name}`")).collect();
    let detail =
        format!("can be read; no standard role of Okta's, so only a custom role of that name: {}", names.join(", "));
    Finding::note(ABOUT, detail)
}

/// One group under several names: what is done to it under one is not seen under the other.
fn written_twice(id: &str, names: &BTreeSet<String>) -> Finding {
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    let detail = format!(
        "named in several ways: {}. Changes under one name are not put in order with those under another, and what is \
         protected under one is not under another",
        names.join(", ")
    );
    Finding::note(format!("group {id}: names"), detail).remedy("write it in the same way everywhere")
}

/// The types of Okta's standard admin roles (Okta API reference, role assignments), and our word for all of them.
const STANDARD_ROLES: [&str; 14] = [
    "any",
    "ACCESS_CERTIFICATIONS_ADMIN",
    "ACCESS_REQUESTS_ADMIN",
    "API_ACCESS_MANAGEMENT_ADMIN",
    "APP_ADMIN",
    "GROUP_MEMBERSHIP_ADMIN",
    "HELP_DESK_ADMIN",
    "MOBILE_ADMIN",
    "ORG_ADMIN",
    "READ_ONLY_ADMIN",
    "REPORT_ADMIN",
    "SUPER_ADMIN",
    "USER_ADMIN",
    "WORKFLOWS_ADMIN",
];
