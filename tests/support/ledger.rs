//! The state file, read beside the daemon.

use okta_responder::model::ids::ActionId;
use okta_responder::store::{ActionFilter, ActionRow, EventFilter, EventRow, PersonChange, Store};

use super::{Scene, eventually};

/// States in which nothing happens any more unless a person asks for it.
const AT_REST: [&str; 8] =
    ["succeeded", "settled", "failed", "skipped", "refused", "cancelled", "needs_attention", "awaiting_approval"];

/// What the daemon has planned and done.
pub struct Ledger {
    /// The file.
    pub store: Store,
}

impl Ledger {
    /// Of a scene, as soon as its daemon has made the file.
    pub async fn of(scene: &Scene) -> Self {
        Self { store: scene.store().await }
    }

    /// Every action, in the order in which they were planned.
    pub async fn actions(&self) -> Vec<ActionRow> {
        let mut actions = self.store.list_actions(ActionFilter::default()).await.unwrap();
        actions.reverse();
        actions
    }

    /// Every event, in the order in which they were stored.
    pub async fn events(&self) -> Vec<EventRow> {
        let mut events = self.store.list_events(EventFilter::default()).await.unwrap();
        events.reverse();
        events
    }

    /// The one action of that step.
    pub async fn step(&self, step: &str) -> ActionRow {
        let mut found = self.actions().await;
        found.retain(|action| action.step == step);
        assert_eq!(found.len(), 1, "actions of the step {step}");
        found.remove(0)
    }

    /// Waits until the actions are as wanted.
    pub async fn wait_until(&self, wanted: impl Fn(&[ActionRow]) -> bool) -> Vec<ActionRow> {
        eventually(async || {
            let actions = self.actions().await;
            if wanted(&actions) { Ok(actions) } else { Err(told(&actions)) }
        })
        .await
    }

    /// Waits until an action of that step is in a state.
    pub async fn wait_for(&self, step: &str, state: &str) -> ActionRow {
        let is_so = |action: &ActionRow| action.step == step && action.state == state;
        let actions = self.wait_until(|actions| actions.iter().any(is_so)).await;
        actions.into_iter().find(is_so).unwrap()
    }

    /// Waits until at least so many events are stored, all of them are decided and every action is at rest.
    pub async fn at_rest(&self, events: usize) -> Vec<ActionRow> {
        eventually(async || {
            let stored = self.events().await;
            let decided = stored.iter().filter(|event| !matches!(event.state.as_str(), "new" | "held")).count();
            let actions = self.actions().await;
            let rest = actions.iter().all(|action| AT_REST.contains(&action.state.as_str()));
            if decided >= events && decided == stored.len() && rest {
                Ok(actions)
            } else {
                Err(format!("{decided} of {} events decided, and {}", stored.len(), told(&actions)))
            }
        })
        .await
    }

    /// Does what a person asks to the one action of a step.
    pub async fn change(&self, scene: &Scene, step: &str, change: PersonChange) {
        let action = self.step(step).await;
        self.store.change_by_person(ActionId(action.id), change, scene.org.now()).await.unwrap();
    }
}

/// The actions in a few words each.
pub fn told(actions: &[ActionRow]) -> String {
    let one = |action: &ActionRow| {
        let why = action.error.as_deref().unwrap_or_default();
        format!("{} {} {} ({why})", action.user.as_deref().unwrap_or_default(), action.step, action.state)
    };
    actions.iter().map(one).collect::<Vec<_>>().join("; ")
}
