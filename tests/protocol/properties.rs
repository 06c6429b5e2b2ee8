//! What is promised, as the checker asks it of every state.

use okta_responder::model::action::{ActionState, InDoubt};
use stateright::{Model, Property};

use crate::model::{Flight, Inbox, Kind, Place, Protocol, State, places, wants_member};

pub const TWICE: &str = "no effect twice";
pub const INVENTED: &str = "no effect without a claim on the file";
pub const UNTRUE: &str = "what is told of an action is true";
pub const LANES: &str = "lanes are in order";
pub const UNFINISHED: &str = "every path ends finished";
pub const LEFT_SO: &str = "what the last event asks for is so in the end";

pub const SHOWN_DOUBLE: &str = "a message is seen twice";
pub const SHOWN_LOSS: &str = "a message is lost and its action says so";
pub const SHOWN_WAIT: &str = "an action waits for a person in the end";

pub fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::always(TWICE, not_twice),
        Property::always(INVENTED, claimed_first),
        Property::always(UNTRUE, told_truly),
        Property::always(LANES, in_order),
        Property::always(UNFINISHED, ends_finished),
        Property::always(LEFT_SO, left_so),
        Property::sometimes(SHOWN_DOUBLE, |protocol, state: &State| {
            places().any(|place| is_message(protocol, place.1) && state.at(place).effects > 1)
        }),
        Property::sometimes(SHOWN_LOSS, |protocol, state: &State| {
            places().any(|place| {
                let action = state.at(place);
                is_message(protocol, place.1) && action.row == Some(ActionState::Settled) && action.effects == 0
            })
        }),
        Property::sometimes(SHOWN_WAIT, |protocol, state: &State| {
            is_over(protocol, state) && places().any(|place| state.at(place).row == Some(ActionState::NeedsAttention))
        }),
    ]
}

/// Whether this is not a promise but something that is allowed, and shown.
pub fn may_happen(property: &str) -> bool {
    [SHOWN_DOUBLE, SHOWN_LOSS, SHOWN_WAIT].contains(&property)
}

/// Only `in_doubt = "resend"` says that a receiver may see a message twice. A person may ask for anything again, and gets
/// it, but for what the service knows by its key.
fn not_twice(protocol: &Protocol, state: &State) -> bool {
    let meddled = has_meddled(state);
    places().all(|place| {
        let allowed = match protocol.kinds[place.1] {
            Kind::Keyed => false,
            Kind::Message(InDoubt::Resend) => true,
            Kind::Set | Kind::Message(_) => meddled,
        };
        state.at(place).effects <= 1 || allowed
    })
}

/// While a request is on its way, its attempt is on the file: a crash now is seen at the next start.
fn claimed_first(_: &Protocol, state: &State) -> bool {
    places().all(|place| {
        let action = state.at(place);
        let out = matches!(action.flight, Some(Flight::Sent | Flight::Acted));
        !out || action.row == Some(ActionState::Started)
    })
}

/// Success means that the service was seen so; failure that it did nothing. Doubt that was accepted says neither, and a
/// message sent again may have been refused the second time only.
fn told_truly(protocol: &Protocol, state: &State) -> bool {
    places().all(|place| {
        let action = state.at(place);
        let doubtful = is_message(protocol, place.1);
        match action.row {
            Some(ActionState::Succeeded) => action.seen,
            Some(ActionState::Settled) => action.seen || doubtful,
            Some(ActionState::Failed) => {
                action.effects == 0 || protocol.kinds[place.1] == Kind::Message(InDoubt::Resend) || action.meddled
            }
            _ => true,
        }
    })
}

/// At most one request of a lane is out, and an older event never undoes a newer one, unless a person asked for it.
fn in_order(protocol: &Protocol, state: &State) -> bool {
    let meddled = has_meddled(state);
    let one_at_a_time = (0..protocol.kinds.len()).filter(|step| protocol.kinds[*step] == Kind::Set).all(|step| {
        let out = |event: &usize| state.at((*event, step)).row == Some(ActionState::Started);
        (0..state.inbox.len()).filter(out).count() <= 1
    });
    one_at_a_time && (!state.disorder || meddled)
}

/// Where nothing can happen any more, everything has ended, or waits visibly for a person, or stands behind what does.
fn ends_finished(protocol: &Protocol, state: &State) -> bool {
    !is_over(protocol, state) || {
        let read = usize::from(state.cursor) == state.inbox.len();
        let decided = state.inbox.iter().all(|event| *event == Inbox::Decided);
        state.up && read && decided && places().all(|place| has_ended_or_waits(protocol, state, place))
    }
}

/// Earlier actions hold the lane, and steps before hold those that come after them.
fn has_ended_or_waits(protocol: &Protocol, state: &State, (event, step): Place) -> bool {
    let waits = |place| !state.is_final(place) && has_ended_or_waits(protocol, state, place);
    match state.at((event, step)).row {
        Some(ActionState::NeedsAttention) => true,
        Some(ActionState::Ready | ActionState::Retry) => {
            protocol.kinds[step] == Kind::Set && (0..event).any(|earlier| waits((earlier, step)))
        }
        Some(ActionState::Waiting) => protocol.chained && (0..step).any(|before| waits((event, before))),
        row => row.is_some_and(ActionState::is_final),
    }
}

/// The group is as the newest event that succeeded wants it.
fn left_so(protocol: &Protocol, state: &State) -> bool {
    let last = state.inbox.len() - 1;
    let meddled = has_meddled(state);
    !is_over(protocol, state)
        || meddled
        || (0..protocol.kinds.len()).filter(|step| protocol.kinds[*step] == Kind::Set).all(|step| {
            let succeeded = state.at((last, step)).row.is_some_and(ActionState::is_success);
            !succeeded || state.member[step] == wants_member(last)
        })
}

fn has_meddled(state: &State) -> bool {
    places().any(|place| state.at(place).meddled)
}

fn is_over(protocol: &Protocol, state: &State) -> bool {
    let mut steps = Vec::new();
    protocol.actions(state, &mut steps);
    // What only has to happen when something goes wrong does not count: a path that needs a crash to go on is stuck.
    steps.iter().all(|step| step.is_mishap())
}

fn is_message(protocol: &Protocol, step: usize) -> bool {
    matches!(protocol.kinds[step], Kind::Message(_))
}
