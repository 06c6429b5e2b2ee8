//! The protocol between log, file and services, checked in every state that two events of two steps can reach.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]
#![allow(clippy::print_stdout, reason = "how much was checked is told")]

mod model;
mod properties;

use model::{Flaw, Kind, Protocol};
use okta_responder::model::action::InDoubt;
use properties::*;
use stateright::{Checker, Expectation, Model};

#[test]
fn probe() {
    for (kinds, chained) in [
        ([Kind::Set, Kind::Set], false),
        ([Kind::Keyed, Kind::Message(InDoubt::Skip)], true),
        ([Kind::Keyed, Kind::Message(InDoubt::Skip)], false),
        ([Kind::Set, Kind::Keyed], false),
        ([Kind::Set, Kind::Keyed], true),
    ] {
        for faults in [0, 1] {
            let t = std::time::Instant::now();
            let p = Protocol { kinds, chained, crashes: 2, faults, meddling: 0, late: false, flaw: None };
            let c = p.checker().threads(2).spawn_dfs().join();
            println!(
                "{kinds:?} chained={chained} faults={faults}: {} {} depth {} {:?} {:?}",
                c.unique_state_count(),
                c.state_count(),
                c.max_depth(),
                t.elapsed(),
                c.discoveries().keys().collect::<Vec<_>>()
            );
        }
    }
}
