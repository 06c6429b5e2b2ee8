//! A simulated world to show, test and measure the daemon against: the org, and the incident that `demo` plays in it.
//!
//! The org runs in this process and the daemon as a process of its own, the same program with `run`, so that it can be
//! killed for real. What the script calls for is written down beforehand ([`script`]) and held against what reached the
//! org ([`tally`]); the daemon's own record is never asked whether it did right.

mod daemon;
mod identity;
mod ledger;
pub mod org;
mod script;
mod show;
mod stage;
mod story;
mod tally;
mod words;

pub use show::{Look, Show};
pub use story::{Demo, DemoError, Summary};
