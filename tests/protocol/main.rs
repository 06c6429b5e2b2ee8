//! The protocol between log, file and services, checked in every state that two events of two steps can reach.
//!
//! The checker goes through all orders of all steps: what the process does, where it dies, what the network loses, what the
//! service refuses. Budgets bound only how often something goes wrong, so every path ends, and where it ends everything
//! has to be finished.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]
#![allow(clippy::print_stdout, reason = "how much was checked is told")]

mod model;
mod properties;

use std::collections::{BTreeSet, HashSet};

use model::{Flaw, Kind, Protocol};
use okta_responder::model::action::InDoubt;
use properties::{INVENTED, LANES, LEFT_SO, SHOWN_DOUBLE, SHOWN_LOSS, SHOWN_WAIT, TWICE, UNFINISHED, UNTRUE};
use stateright::{Checker, HasDiscoveries, Model};

/// Two crashes and one thing that goes wrong outside; no person does anything.
fn protocol(first: Kind, second: Kind) -> Protocol {
    Protocol {
        kinds: [first, second],
        chained: false,
        crashes: 2,
        faults: 1,
        changes: 0,
        careful: true,
        late: false,
        flaw: None,
    }
}

/// Visits every state. Every promise holds in each, and of what may happen exactly `shown` does.
#[track_caller]
fn check(protocol: Protocol, shown: &[&str]) {
    let checker = protocol.checker().spawn_dfs().join();
    println!("{protocol:?}: {} states, {} steps", checker.unique_state_count(), checker.state_count());
    assert!(checker.is_done());
    let discovered = checker.discoveries();
    let broken = discovered.iter().find(|(property, _)| !properties::may_happen(property));
    if let Some((property, path)) = broken {
        panic!("not so: {property}\n{:#?}", path.clone().into_actions());
    }
    let found: BTreeSet<&str> = discovered.keys().copied().collect();
    assert_eq!(found, shown.iter().copied().collect());
}

/// The checker finds a path on which the property does not hold.
#[track_caller]
fn refute(protocol: Protocol, property: &'static str) {
    let wanted = HasDiscoveries::AllOf([property].into());
    let checker = protocol.checker().finish_when(wanted).spawn_bfs().join();
    let path = checker.discovery(property).unwrap_or_else(|| panic!("{:?} goes unseen", protocol.flaw));
    println!("{:?}, against \"{property}\": {:?}", protocol.flaw, path.into_actions());
}

#[test]
fn crashes_alone_double_nothing_lose_nothing_and_leave_nothing_to_a_person() {
    check(Protocol { faults: 0, ..protocol(Kind::Set, Kind::Set) }, &[]);
    check(Protocol { faults: 0, ..protocol(Kind::Set, Kind::Keyed) }, &[]);
}

#[test]
fn two_lanes_end_in_order_and_as_the_last_event_wants_it() {
    check(Protocol { faults: 2, ..protocol(Kind::Set, Kind::Set) }, &[SHOWN_WAIT]);
}

#[test]
fn set_like_and_keyed_effects_happen_exactly_once_or_wait_for_a_person() {
    check(protocol(Kind::Set, Kind::Keyed), &[SHOWN_WAIT]);
    check(Protocol { chained: true, faults: 2, ..protocol(Kind::Keyed, Kind::Set) }, &[SHOWN_WAIT]);
}

#[test]
fn a_message_that_is_not_sent_again_may_be_lost_and_says_so() {
    let chained = Protocol { chained: true, ..protocol(Kind::Keyed, Kind::Message(InDoubt::Skip)) };
    check(chained, &[SHOWN_LOSS, SHOWN_WAIT]);
}

#[test]
fn a_message_that_is_sent_again_may_be_seen_twice_and_is_never_lost() {
    let chained = Protocol { chained: true, ..protocol(Kind::Set, Kind::Message(InDoubt::Resend)) };
    check(chained, &[SHOWN_DOUBLE, SHOWN_WAIT]);
}

#[test]
fn a_message_in_doubt_waits_for_a_person_and_after_one_who_looks_is_sent_once() {
    let chained = Protocol { chained: true, ..protocol(Kind::Set, Kind::Message(InDoubt::Ask)) };
    check(Protocol { faults: 0, ..chained }, &[SHOWN_WAIT]);
    check(Protocol { changes: 2, ..chained }, &[SHOWN_WAIT]);
}

#[test]
fn a_person_who_meddles_doubles_no_keyed_effect_and_leaves_nothing_open() {
    let chained = Protocol { chained: true, crashes: 1, careful: false, ..protocol(Kind::Set, Kind::Keyed) };
    check(Protocol { changes: 2, faults: 0, ..chained }, &[]);
    check(Protocol { changes: 1, ..chained }, &[SHOWN_WAIT]);
}

#[test]
fn the_checker_visits_as_many_states_as_a_plain_walk_finds() {
    let protocol = Protocol { chained: true, ..protocol(Kind::Set, Kind::Keyed) };
    let mut seen: HashSet<model::State> = protocol.init_states().into_iter().collect();
    let mut open: Vec<model::State> = seen.iter().cloned().collect();
    while let Some(state) = open.pop() {
        for next in protocol.next_states(&state) {
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    assert_eq!(protocol.checker().spawn_dfs().join().unique_state_count(), seen.len());
}

#[test]
fn every_flaw_is_found() {
    let sets = protocol(Kind::Set, Kind::Set);
    let skipping = Protocol { chained: true, ..protocol(Kind::Keyed, Kind::Message(InDoubt::Skip)) };
    let keyed = Protocol { chained: true, ..protocol(Kind::Set, Kind::Keyed) };
    for (flaw, protocol, property) in [
        (Flaw::CursorBeforeEvents, sets, UNFINISHED),
        (Flaw::DecidedBeforeActions, sets, UNFINISHED),
        (Flaw::NoDeduplication, skipping, TWICE),
        (Flaw::ClaimAfterRequest, skipping, TWICE),
        (Flaw::ClaimAfterRequest, keyed, INVENTED),
        (Flaw::LostIsForgotten, sets, UNFINISHED),
        (Flaw::SettledBlindly, skipping, TWICE),
        (Flaw::UnknownIsSuccess, keyed, UNTRUE),
        (Flaw::UnknownIsTransient, skipping, TWICE),
        (Flaw::NoLanes, sets, LANES),
        (Flaw::LaneFreeInDoubt, sets, LANES),
        (Flaw::LaneFreeInDoubt, sets, LEFT_SO),
    ] {
        refute(Protocol { flaw: Some(flaw), ..protocol }, property);
    }
}

/// What is not promised: a request that a service takes up only after its target was read back. It can double a ticket,
/// and in a lane it can come after its turn.
#[test]
fn a_request_that_is_done_after_it_was_read_back_is_beyond_the_protocol() {
    refute(Protocol { late: true, ..protocol(Kind::Set, Kind::Keyed) }, TWICE);
    refute(Protocol { late: true, ..protocol(Kind::Set, Kind::Set) }, LANES);
}
