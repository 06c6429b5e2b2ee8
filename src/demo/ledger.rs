//! The daemon's record, read beside it.

use crate::model::action::ActionState;
use crate::store::{ActionFilter, ActionRow, EventFilter, EventRow, RunFilter, RunRow, Store, StoreError};

/// More rows than the incident has.
const ALL: usize = 1000;

/// Everything that is on record, oldest first.
#[derive(Debug, Default)]
pub(super) struct LedgerSnapshot {
    pub(super) events: Vec<EventRow>,
    pub(super) runs: Vec<RunRow>,
    pub(super) actions: Vec<ActionRow>,
}

impl LedgerSnapshot {
    pub(super) async fn of(store: &Store) -> Result<Self, StoreError> {
        let mut snapshot = Self {
            events: store.list_events(EventFilter { limit: ALL, ..EventFilter::default() }).await?,
            runs: store.list_runs(RunFilter { limit: ALL, ..RunFilter::default() }).await?,
            actions: store.list_actions(ActionFilter { limit: ALL, ..ActionFilter::default() }).await?,
        };
        snapshot.events.reverse();
        snapshot.runs.reverse();
        snapshot.actions.reverse();
        Ok(snapshot)
    }

    /// The event of this uuid.
    pub(super) fn event(&self, uuid: &str) -> Option<&EventRow> {
        self.events.iter().find(|event| event.uuid == uuid)
    }

    /// The actions that are not at their end.
    pub(super) fn open_actions(&self) -> impl Iterator<Item = &ActionRow> {
        self.actions.iter().filter(|action| !is_final(action))
    }

    /// Whether nothing is left to decide or to do.
    pub(super) fn is_at_rest(&self) -> bool {
        self.events.iter().all(has_ended) && self.open_actions().next().is_none()
    }
}

/// Whether the daemon is through with deciding about the event.
pub(super) fn has_ended(event: &EventRow) -> bool {
    matches!(event.state.as_str(), "decided" | "skipped" | "superseded")
}

/// Whether nothing follows any more.
pub(super) fn is_final(action: &ActionRow) -> bool {
    ActionState::parse(&action.state).is_some_and(ActionState::is_final)
}
