//! Named points between and inside the transactions at which a test can stop the daemon dead and kill it.
//!
//! Only debug builds and those with the feature `halt` have them; the feature is turned on for tests, benches and
//! examples, and never for the program itself. `OKTA_RESPONDER_HALT_AT=NAME` (or `NAME:3` for the third time) makes the
//! thread that gets there say so on standard error and never go on.

/// Where a halt can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// A page is read; nothing of it is stored.
    PageRead,
    /// Inside T1, before its commit.
    InsideT1,
    /// T1 is on the disk.
    PageStored,
    /// A decision is made; nothing of it is stored.
    DecisionMade,
    /// Inside T2, before its commit.
    InsideT2,
    /// T2 is on the disk.
    DecisionStored,
    /// A waiting action is prepared and stored.
    Prepared,
    /// Inside T3, before its commit.
    InsideT3,
    /// T3 is on the disk; the request has not left.
    Claimed,
    /// The service has answered; nothing of that is stored.
    Answered,
    /// Inside T4, before its commit.
    InsideT4,
    /// T4 is on the disk.
    OutcomeStored,
    /// The target of an unknown attempt is read back; nothing of that is stored.
    ReadBack,
    /// The schema is about to be brought up to date.
    BeforeMigration,
    /// Inside the transaction that does so, after each migration.
    InsideMigration,
    /// The schema is up to date, on the disk.
    Migrated,
}

impl Point {
    /// The points of a start that changes the schema.
    pub const OF_A_MIGRATION: [Self; 3] = [Self::BeforeMigration, Self::InsideMigration, Self::Migrated];

    /// Every point of the work on events and actions.
    pub const ALL: [Self; 13] = [
        Self::PageRead,
        Self::InsideT1,
        Self::PageStored,
        Self::DecisionMade,
        Self::InsideT2,
        Self::DecisionStored,
        Self::Prepared,
        Self::InsideT3,
        Self::Claimed,
        Self::Answered,
        Self::InsideT4,
        Self::OutcomeStored,
        Self::ReadBack,
    ];

    /// The name in the environment variable.
    pub fn name(self) -> &'static str {
        match self {
            Self::PageRead => "page_read",
            Self::InsideT1 => "inside_t1",
            Self::PageStored => "page_stored",
            Self::DecisionMade => "decision_made",
            Self::InsideT2 => "inside_t2",
            Self::DecisionStored => "decision_stored",
            Self::Prepared => "prepared",
            Self::InsideT3 => "inside_t3",
            Self::Claimed => "claimed",
            Self::Answered => "answered",
            Self::InsideT4 => "inside_t4",
            Self::OutcomeStored => "outcome_stored",
            Self::ReadBack => "read_back",
            Self::BeforeMigration => "before_migration",
            Self::InsideMigration => "inside_migration",
            Self::Migrated => "migrated",
        }
    }
}

/// The environment variable.
pub const HALT_AT: &str = "OKTA_RESPONDER_HALT_AT";

/// Does nothing in builds that have no halt points.
#[cfg(not(any(debug_assertions, feature = "halt")))]
pub fn point(_: Point) {}

/// Stops here for ever if the environment says so.
#[cfg(any(debug_assertions, feature = "halt"))]
#[allow(clippy::print_stderr, reason = "the test that set the variable reads standard error")]
pub fn point(here: Point) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicI64, Ordering};

    static WANTED: OnceLock<Option<(String, AtomicI64)>> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var(HALT_AT).ok()?;
        let (name, count) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), AtomicI64::new(count.parse().unwrap_or(1))))
    });
    if let Some((name, left)) = wanted
        && name == here.name()
        && left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        eprintln!("halted at {name}");
        loop {
            std::thread::park();
        }
    }
}
