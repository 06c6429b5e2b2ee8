//! `okta.group.remove_user_from_all` and `okta.group.restore_user`: all groups of a user at once, and back again.
//!
//! What is going to be removed is on record before the first group is touched: the first attempt only reads and remembers,
//! each further one takes the user out of the next group. So no crash forgets what there is to restore.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use super::okta_params::{Name, RuleManaged, listing, named, no_such_user, parse, parsed, remembered, user_receipt};
use super::{ActionKind, Call, Connector, Effect, FromEvent, Service, shape};
use crate::guard::Cleared;
use crate::model::escape::Escape;
use crate::model::outcome::{Failure, GroupNote, Outcome, Reason, Receipt, Verdict};
use crate::okta::groups::{GroupError, GroupRef, OKTA_GROUP};
use crate::okta::rights::Right;
use crate::okta::{OktaClient, OktaError, OktaErrorKind};

/// Takes a user out of every group whose members are managed in Okta, and remembers which they were.
pub static REMOVE_FROM_ALL: ActionKind = ActionKind {
    name: "okta.group.remove_user_from_all",
    summary: "Takes a user out of all his groups and remembers them",
    service: Service::Okta,
    effect: Effect::SetLike,
    changes_access: true,
    resets_risk: false,
    rights: &[Right::ReadGroups, Right::ReadUsers, Right::ChangeMembers],
    from_event: &[("user", FromEvent::UserId)],
    check: |params| parse::<Removal>(params).map(drop),
    schema: shape::<Removal>,
    escape: |_| Escape::Plain,
    lane: |params| lane(&parse::<Removal>(params).ok()?.user),
};

/// Puts a user back into the groups that [`REMOVE_FROM_ALL`] took him out of since he was last put back, or into those that
/// are named.
pub static RESTORE: ActionKind = ActionKind {
    name: "okta.group.restore_user",
    summary: "Puts a user back into the groups that he was taken out of",
    check: |params| parse::<Restoration>(params).map(drop),
    schema: shape::<Restoration>,
    lane: |params| lane(&parse::<Restoration>(params).ok()?.user),
    ..REMOVE_FROM_ALL
};

/// One for both ways. What is remembered is looked up by it as well.
fn lane(user: &Name) -> Option<String> {
    Some(format!("okta.group.all/{}", user.0))
}

/// Performs [`REMOVE_FROM_ALL`].
#[derive(Debug)]
pub struct RemoveFromAll {
    okta: Arc<OktaClient>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Removal {
    /// Id or login.
    user: Name,
    /// Names or ids of groups that he stays in.
    #[serde(default)]
    except: Vec<Name>,
    /// What becomes of memberships that a group rule made.
    #[serde(default)]
    rule_managed: RuleManaged,
}

/// The groups of a user, sorted.
struct Sorted {
    /// Those that he is to leave.
    leave: Vec<GroupRef>,
    /// A sentence about those that he keeps and that people may not expect him to; empty when there are none.
    kept: String,
}

#[async_trait]
impl Connector for RemoveFromAll {
    async fn perform(&self, call: &Cleared<Call>) -> Outcome {
        let params: Removal = match parsed(&call.params) {
            Ok(params) => params,
            Err(outcome) => return outcome,
        };
        let (user, groups) = match groups_of(&self.okta, &params.user.0).await {
            Ok(Some(found)) => found,
            Ok(None) => return Outcome::AlreadyDone(Receipt::note("there is no such user")),
            Err(error) => return error.to_outcome(false),
        };
        let is_protected = |group: &GroupRef| call.protects([group.name.as_str(), group.id.as_str()]).is_some();
        let plan = &call.earlier.groups;
        let open: Vec<&GroupRef> = open(plan, &groups).filter(|group| !is_protected(group)).collect();
        // The rules are read at the beginning, to decide, and at the end, to tell.
        let sorted = match plan.is_empty() || open.len() <= 1 {
            true => self.sorted(&params, &user, &groups, is_protected).await,
            false => Ok(Sorted { leave: Vec::new(), kept: String::new() }),
        };
        let sorted = match sorted {
            Ok(sorted) => sorted,
            Err(error) => return error.to_outcome(false),
        };
        if plan.is_empty() {
            return self.begin(&user, sorted);
        }
        let Some((next, rest)) = open.split_first() else { return self.end(&user, plan, &groups, &sorted.kept) };
        match self.okta.remove_member(&next.id, &user).await {
            Ok(()) if rest.is_empty() && !plan.iter().any(|note| note.refused) => {
                let left: Vec<_> = groups.iter().filter(|group| group.id != next.id).cloned().collect();
                self.end(&user, plan, &left, &sorted.kept)
            }
            Ok(()) => {
                let note = format!("is out of {}; {} more to leave", named(&next.name, &next.id), rest.len());
                Outcome::Progress(user_receipt(&self.okta, &user, note))
            }
            Err(error) => refused(&self.okta, &user, error, plan, next, rest.is_empty()),
        }
    }

    async fn verify(&self, call: &Call) -> Verdict {
        let Ok(params) = parse::<Removal>(&call.params) else { return Verdict::CannotTell };
        let (user, groups) = match groups_of(&self.okta, &params.user.0).await {
            Ok(Some(found)) => found,
            Ok(None) => return Verdict::Done(Receipt::note("there is no such user")),
            Err(error) => return error.to_verdict(),
        };
        // One that Okta has refused is not left either: the next attempt tells of it.
        if call.earlier.groups.iter().any(|note| groups.iter().any(|group| group.id == note.id)) {
            return Verdict::NotDone;
        }
        match self.sorted(&params, &user, &groups, |_| false).await {
            Ok(Sorted { leave, .. }) if call.earlier.groups.is_empty() && !leave.is_empty() => Verdict::NotDone,
            Ok(Sorted { leave, mut kept }) => {
                // The guard is not asked while a doubt is settled, so these may be protected ones.
                if !leave.is_empty() {
                    let names = listing(leave.iter().map(|group| named(&group.name, &group.id)));
                    kept.push_str(&format!(
                        "; not to leave, because they are protected or he joined them since: {names}"
                    ));
                }
                let note = format!("is in none of the groups to leave any more{kept}");
                Verdict::Done(user_receipt(&self.okta, &user, note))
            }
            Err(error) => error.to_verdict(),
        }
    }
}

impl RemoveFromAll {
    /// On this org.
    pub fn new(okta: Arc<OktaClient>) -> Self {
        Self { okta }
    }

    /// Remembers what there is to leave. Nothing is touched before that is on record.
    fn begin(&self, user: &str, sorted: Sorted) -> Outcome {
        let Sorted { leave, kept } = sorted;
        if leave.is_empty() {
            return Outcome::AlreadyDone(user_receipt(&self.okta, user, format!("is in no group to leave{kept}")));
        }
        let names = listing(leave.iter().map(|group| named(&group.name, &group.id)));
        let note = format!("has {} groups to leave: {names}{kept}", leave.len());
        let groups = leave.iter().map(remembered).collect();
        Outcome::Progress(Receipt { groups, ..user_receipt(&self.okta, user, note) })
    }

    /// The end, for who is in these groups still.
    fn end(&self, user: &str, plan: &[GroupNote], groups: &[GroupRef], kept: &str) -> Outcome {
        let is_in = |note: &&GroupNote| groups.iter().any(|group| group.id == note.id);
        let refused: Vec<_> = plan.iter().filter(|note| note.refused).filter(is_in).collect();
        if !refused.is_empty() {
            let names = listing(refused.iter().map(|note| named(&note.name, &note.id)));
            let why = format!("Okta refuses to take user {user} out of {names}; he is out of the others{kept}");
            return Outcome::Permanent(Failure::new(Reason::Forbidden, why));
        }
        let left = plan.iter().filter(|note| !is_in(note)).count();
        Outcome::Done(user_receipt(&self.okta, user, format!("is out of {left} groups{kept}")))
    }

    /// Which groups he is to leave. Imported groups and `Everyone` cannot be left; protected ones, and those that a rule
    /// may have put him into, are not, and both are told.
    async fn sorted(
        &self,
        params: &Removal,
        user: &str,
        groups: &[GroupRef],
        is_protected: impl Fn(&GroupRef) -> bool,
    ) -> Result<Sorted, OktaError> {
        let excepted = |group: &GroupRef| params.except.iter().any(|name| name.0 == group.id || name.0 == group.name);
        let open = groups.iter().filter(|group| !excepted(group)).cloned();
        let (ours, foreign): (Vec<_>, Vec<_>) = open.partition(|group| group.kind == OKTA_GROUP);
        let (protected, mut leave): (Vec<_>, Vec<_>) = ours.into_iter().partition(is_protected);
        let mut by_rule = Vec::new();
        if params.rule_managed == RuleManaged::Report && !leave.is_empty() {
            let rules = self.okta.group_rules().await?;
            let held = |group: &GroupRef| rules.iter().any(|rule| rule.may_hold(user, &group.id));
            (by_rule, leave) = leave.into_iter().partition(held);
        }
        let imported: Vec<_> = foreign.into_iter().filter(|group| group.kind != "BUILT_IN").collect();
        let mut kept = String::new();
        for (groups, why) in
            [(by_rule, "a group rule manages them"), (imported, "they are imported"), (protected, "they are protected")]
        {
            if !groups.is_empty() {
                let names = listing(groups.iter().map(|group| named(&group.name, &group.id)));
                kept.push_str(&format!("; kept, because {why}: {names}"));
            }
        }
        Ok(Sorted { leave, kept })
    }
}

/// Performs [`RESTORE`].
#[derive(Debug)]
pub struct Restore {
    okta: Arc<OktaClient>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Restoration {
    /// Id or login.
    user: Name,
    /// Names or ids, instead of what is remembered.
    #[serde(default)]
    groups: Option<Vec<Name>>,
}

/// What there is to restore.
struct Missing {
    user: String,
    /// The first group that he is not in and can be put into.
    next: Option<GroupRef>,
    /// How many are behind it.
    rest: usize,
    /// A sentence about those that he cannot; empty when there are none.
    lost: String,
}

/// Why it cannot be told what there is to restore.
enum Unclear {
    NoSuchUser,
    Okta(OktaError),
    Group(GroupError),
}

impl From<OktaError> for Unclear {
    fn from(error: OktaError) -> Self {
        Self::Okta(error)
    }
}

#[async_trait]
impl Connector for Restore {
    async fn perform(&self, call: &Cleared<Call>) -> Outcome {
        let params: Restoration = match parsed(&call.params) {
            Ok(params) => params,
            Err(outcome) => return outcome,
        };
        let is_protected = |group: &GroupRef| call.protects([group.name.as_str(), group.id.as_str()]).is_some();
        let Missing { user, next, rest, lost } = match self.missing(&params, &call.earlier, is_protected).await {
            Ok(missing) => missing,
            Err(Unclear::NoSuchUser) => return no_such_user(&params.user.0),
            Err(Unclear::Okta(error)) => return error.to_outcome(false),
            Err(Unclear::Group(error)) => return error.to_outcome(),
        };
        // What is remembered becomes this action's own memory with the first group that is restored.
        let receipt =
            |note: String| Receipt { groups: call.earlier.groups.clone(), ..user_receipt(&self.okta, &user, note) };
        let Some(next) = next else {
            let refused: Vec<_> = call.earlier.groups.iter().filter(|note| note.refused).collect();
            if refused.is_empty() {
                let note = match params.groups.is_none() && call.earlier.groups.is_empty() {
                    true => "nothing is remembered that he was taken out of".to_owned(),
                    false => format!("is in every group to restore{lost}"),
                };
                return Outcome::AlreadyDone(receipt(note));
            }
            let names = listing(refused.iter().map(|note| named(&note.name, &note.id)));
            let why = format!("Okta refuses to put user {user} back into {names}; he is in the others{lost}");
            return Outcome::Permanent(Failure::new(Reason::Forbidden, why));
        };
        let name = named(&next.name, &next.id);
        match self.okta.add_member(&next.id, &user).await {
            Ok(()) if rest == 0 && !call.earlier.groups.iter().any(|note| note.refused) => {
                Outcome::Done(receipt(format!("is back in {name}, and so in every group to restore{lost}")))
            }
            Ok(()) => Outcome::Progress(receipt(format!("is back in {name}; {rest} more to restore"))),
            Err(error) => {
                let mut plan = call.earlier.groups.clone();
                if !plan.iter().any(|note| note.id == next.id) {
                    plan.push(remembered(&next));
                }
                refused(&self.okta, &user, error, &plan, &next, rest == 0)
            }
        }
    }

    async fn verify(&self, call: &Call) -> Verdict {
        let Ok(params) = parse::<Restoration>(&call.params) else { return Verdict::CannotTell };
        match self.missing(&params, &call.earlier, |_| false).await {
            // One that refuses him is not restored: the next attempt tells of it.
            Ok(Missing { next: None, .. }) if call.earlier.groups.iter().any(|note| note.refused) => Verdict::NotDone,
            Ok(Missing { user, next: None, lost, .. }) => {
                Verdict::Done(user_receipt(&self.okta, &user, format!("is in every group to restore{lost}")))
            }
            Ok(_) | Err(Unclear::NoSuchUser) => Verdict::NotDone,
            Err(Unclear::Okta(error)) => error.to_verdict(),
            Err(Unclear::Group(error)) => error.to_verdict(),
        }
    }
}

impl Restore {
    /// On this org.
    pub fn new(okta: Arc<OktaClient>) -> Self {
        Self { okta }
    }

    async fn missing(
        &self,
        params: &Restoration,
        earlier: &Receipt,
        is_protected: impl Fn(&GroupRef) -> bool,
    ) -> Result<Missing, Unclear> {
        let Some((user, groups)) = groups_of(&self.okta, &params.user.0).await? else {
            return Err(Unclear::NoSuchUser);
        };
        let named_ones = match &params.groups {
            None => None,
            Some(names) => {
                let mut found = Vec::new();
                for name in names {
                    found.push(self.okta.resolve_group(&name.0).await.map_err(Unclear::Group)?);
                }
                Some(found)
            }
        };
        let refused = |id: &str| earlier.groups.iter().any(|note| note.id == id && note.refused);
        let mut wanted: Vec<GroupNote> = match named_ones {
            Some(found) => found.iter().map(remembered).collect(),
            None => earlier.groups.clone(),
        };
        wanted.retain(|note| !groups.iter().any(|group| group.id == note.id) && !refused(&note.id));
        let mut seen = BTreeSet::new();
        wanted.retain(|note| seen.insert(note.id.clone()));
        let (mut next, mut gone, mut protected) = (None, Vec::new(), Vec::new());
        let mut rest = wanted.len();
        for note in wanted {
            rest -= 1;
            match self.okta.group(&note.id).await? {
                None => gone.push(named(&note.name, &note.id)),
                Some(group) if is_protected(&group) => protected.push(named(&group.name, &group.id)),
                Some(group) => {
                    next = Some(group);
                    break;
                }
            }
        }
        let mut lost = String::new();
        for (names, why) in [(gone, "they are gone"), (protected, "they are protected")] {
            if !names.is_empty() {
                lost.push_str(&format!("; not restored, because {why}: {}", listing(names)));
            }
        }
        Ok(Missing { user, next, rest, lost })
    }
}

/// A user's id and his groups; `None` when there is no such user.
async fn groups_of(okta: &OktaClient, name: &str) -> Result<Option<(String, Vec<GroupRef>)>, OktaError> {
    let Some(user) = okta.user_id(name).await? else { return Ok(None) };
    match okta.user_groups(&user).await {
        Ok(groups) => Ok(Some((user, groups))),
        Err(error) if error.kind == OktaErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The groups of the plan that he is in and that Okta has not refused, in the order of the plan.
fn open<'a>(plan: &'a [GroupNote], groups: &'a [GroupRef]) -> impl Iterator<Item = &'a GroupRef> {
    let open = plan.iter().filter(|note| !note.refused);
    open.filter_map(|note| groups.iter().find(|group| group.id == note.id))
}

/// What an error about one group means. One that Okta refuses, because it gives an admin role, say, must not keep the user in
/// the others: it is noted and passed over, and told at the end.
fn refused(
    okta: &OktaClient,
    user: &str,
    error: OktaError,
    plan: &[GroupNote],
    group: &GroupRef,
    is_last: bool,
) -> Outcome {
    match error.kind {
        OktaErrorKind::Forbidden if !(is_last && plan.len() == 1) => {
            let mut groups = plan.to_vec();
            groups.iter_mut().filter(|note| note.id == group.id).for_each(|note| note.refused = true);
            let note = format!("{} is refused by Okta ({error})", named(&group.name, &group.id));
            Outcome::Progress(Receipt { groups, ..user_receipt(okta, user, super::cut(&note, Failure::MAX_DETAIL)) })
        }
        // The group is gone, or the user: the next attempt reads what there is.
        OktaErrorKind::NotFound => Outcome::Transient(error.to_failure()),
        _ => error.to_outcome(true),
    }
}

#[cfg(test)]
mod tests;
