//! okta-responder polls the Okta System Log outward and answers identity threats from inside your own network.
//!
//! # Bird's-eye view
//!
//! ```text
//! Okta System Log ──poll──▶ inbox ──decide──▶ ledger ──dispatch──▶ connectors ──▶ Okta · ServiceNow · Slack · Teams · mail
//!                           └──────── one SQLite file, every arrow one transaction ────────┘
//! ```
//!
//! [`model`] is plain data. [`playbook`] and [`guard`] decide and do no IO. [`okta`] and [`connectors`] are the only code
//! that sends requests, [`store`] is the only code that knows SQL. [`engine`] ties them together in three tasks that wake
//! each other, [`app`] starts and stops these, [`cli`] is what people type. [`demo`] is a simulated org, for the `demo`
//! command, the tests and the benches.
//!
//! # One event on its way through the house
//!
//! 1. [`engine::Poller`] asks Okta for the page behind the stored cursor. [`okta::page`] reads the `next` link and refuses
//!    one that leads to another host. [`engine::intake`] sorts the records: wanted, unwanted, quarantine.
//! 2. **T1** ([`store::Store::commit_page`]): the page's events and the cursor behind them, in one transaction. The decider
//!    is woken.
//! 3. [`engine::Decider`] takes the event from the inbox. Our own events and our own echoes end here. For each playbook
//!    that wants its type it fetches the facts that *decide* (and no others), and lets [`playbook::plan`] say which steps
//!    are called for, with which parameters, on which lane. [`guard`] may refuse; nothing goes round it.
//! 4. **T2** ([`store::Store::commit_decisions`]): the run, its actions with their idempotency keys, and the event marked
//!    decided, in one transaction. The dispatcher is woken.
//! 5. [`engine::Dispatcher`] prepares what had to wait (for other steps, for facts that only describe) and claims what is
//!    ready and whose lane is free. **T3** ([`store::Store::claim_ready`]): the guard is asked once more, with what was done
//!    in the last hour; then the claim and the attempt row, on the disk.
//! 6. The request leaves, which only what the guard has cleared can do ([`guard::Cleared`]). The connector says how it ended, as one [`model::outcome::Outcome`], and never repeats anything.
//! 7. **T4** ([`store::Store::record_outcome`]): the outcome and what it means for the action: succeeded, retry at a moment
//!    that survives restarts, failed, or unknown. An unknown action's target is read back before anything else happens.
//!
//! # Invariants, and the tests that prove them
//!
//! 1. **Cursor and events commit together**, and the cursor moves in no other way.
//!    `tests/crash.rs: the_daemon_is_killed_at_every_point_there_is`,
//!    `store::tests::a_page_that_does_not_follow_the_cursor_changes_nothing`.
//! 2. **Intent before effect.** No request that changes something leaves before its attempt row is committed; an attempt
//!    without an outcome is read back, never blindly repeated. `tests/crash.rs`, `tests/settle.rs`,
//!    `model::action::tests::nothing_is_sent_without_a_claim`,
//!    `model::action::tests::an_unknown_action_is_never_sent_again_without_reading_back_or_a_person`. At random, with faults of
//!    the services: `tests/schedules.rs`. The order of the steps itself, in every state: `tests/protocol`; the state file
//!    against a plain model: `tests/ledger_model`.
//! 3. **Deciding is pure.** `now` is an argument; `clippy.toml` bans clocks, sleeps and exits outside the shell
//!    ([`engine::clock`]), so that the lint is the test.
//! 4. **SQL only in [`store`], outbound HTTP only in [`okta`] and [`connectors`].** No transaction is open across an await:
//!    jobs of the writer thread are plain functions.
//! 5. **Secrets are typed.** Never in `Debug`, errors, logs, the database:
//!    `connectors::contract::no_secret_shows_even_if_the_service_repeats_it`.
//! 6. **Everything outside is hostile.** Event text is escaped for its destination, bounded and never evaluated:
//!    `playbook::template::tests::nothing_gets_around_the_formatter`,
//!    `model::escape::tests::whatever_comes_nothing_of_it_is_live`, `model::risk` and `okta::page` property tests,
//!    `tests/hostile.rs`; the targets in `fuzz/` look for more.
//! 7. **Idempotency records outlive actions.** [`store::Store::prune`] drops bodies first and events last, remembers the keys
//!    of what was sent, and counts by the earlier of Okta's clock and ours: `tests/retention.rs:
//!    an_event_is_recognised_for_as_long_as_okta_can_send_it_again`, `the_key_of_what_was_sent_outlives_its_row`,
//!    `a_clock_that_jumps_takes_nothing_away_too_early`.
//! 8. **What is changed is told.** Every change of an action's state and everything a person does adds a record to the journal
//!    in the same transaction, sealed with the one before it: `tests/retention.rs:
//!    the_journal_tells_every_change_and_who_made_it`, `store::chain::tests::whatever_is_done_to_an_export_is_noticed`.
//! 9. **Never too much.** Nothing is sent that the guard has not passed at its claim, and no hour sees more changes than the
//!    limits allow without a person: the doc test of [`guard::Cleared`]'s module,
//!    `guard::limits::tests::no_sequence_of_events_makes_more_than_n_changes_in_any_hour`,
//!    `store::tests::guard::the_ledger_never_lets_more_through_than_the_limit`, `tests/guard.rs`.
#![forbid(unsafe_code)]

pub mod app;
pub mod cli;
pub mod config;
pub mod connectors;
pub mod demo;
pub mod engine;
pub mod guard;
pub mod halt;
pub mod http;
pub mod model;
pub mod okta;
pub mod playbook;
pub mod store;
pub mod telemetry;
