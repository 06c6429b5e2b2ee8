//! A state file that is damaged, foreign, cut off or of another version: each has its end and says so, and never works on
//! in silence.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use okta_responder::demo::org::{User, events};
use okta_responder::halt::{HALT_AT, Point};
use okta_responder::store::Store;
use rusqlite::Connection;
use support::Daemon;
use support::every::Every;
use support::ledger::Ledger;

/// A daemon that had something to do and was killed, so that its file has no mark of a stop in order.
struct Killed {
    every: Every,
    /// The file as the kill left it, its log taken into it.
    whole: Vec<u8>,
}

impl Killed {
    async fn new() -> Self {
        let every = Every::new(&["add", "incident"], "").await;
        let daemon = every.scene.daemon();
        let mut logged = Vec::new();
        for number in 0..60 {
            let user = every.scene.org.add_user(User::new("Ann", &format!("Miller {number}")));
            logged.push(events::sign_in(&user, "HIGH"));
        }
        every.scene.org.push_events(logged);
        Ledger::of(&every.scene).await.at_rest(60).await;
        daemon.kill();
        let state = every.scene.state();
        let connection = Connection::open(&state).unwrap();
        // Pages that are free, for the damage to hit.
        connection
            .execute_batch(
                "INSERT INTO control VALUES ('big', hex(zeroblob(100000)), 0); DELETE FROM control WHERE name = 'big'",
            )
            .unwrap();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        connection.close().unwrap();
        let whole = fs::read(&state).unwrap();
        Self { every, whole }
    }

    fn state(&self) -> PathBuf {
        self.every.scene.state()
    }

    /// Puts the whole file back, and then does something to it.
    fn with(&self, damage: impl FnOnce(&Path)) {
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{suffix}", self.state().display()));
        }
        fs::write(self.state(), &self.whole).unwrap();
        damage(&self.state());
    }

    /// The number of a page of a table or index that holds entries.
    fn leaf_of(&self, name: &str) -> u64 {
        self.with(|_| {});
        let connection = Connection::open(self.state()).unwrap();
        let sql = "SELECT pageno FROM dbstat WHERE name = ?1 AND pagetype = 'leaf' AND ncell > 1 LIMIT 1";
        connection.query_row(sql, [name], |row| row.get(0)).unwrap()
    }

    fn page_size(&self) -> u64 {
        u64::from(u16::from_be_bytes([self.whole[16], self.whole[17]]))
    }

    /// Both the check on demand and the daemon say that the file is not what it should be, and how to go on.
    async fn check(&self, what: &str, damage: impl Fn(&Path), words: &str) {
        self.with(&damage);
        let demanded = self.every.scene.command(&["check", "--state"]);
        let told = format!("{demanded:?}");
        assert_eq!(demanded.status.code(), Some(78), "{what}: {told}");
        assert!(told.contains(words) && !told.contains("panicked"), "{what}: {told}");

        self.with(&damage);
        let mut daemon = self.every.scene.daemon();
        let status = daemon.wait();
        let log = daemon.log();
        assert_eq!(status.code(), Some(78), "{what}: {log}");
        assert!(log.contains(words) && !log.contains("panicked"), "{what}: {log}");
    }
}

/// Writes over a part of a page.
fn overwrite(at: u64, bytes: &'static [u8]) -> impl Fn(&Path) {
    move |state: &Path| {
        fs::OpenOptions::new().write(true).open(state).unwrap().write_all_at(bytes, at).unwrap();
    }
}

fn cut_to(length: u64) -> impl Fn(&Path) {
    move |state: &Path| fs::OpenOptions::new().write(true).open(state).unwrap().set_len(length).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_anywhere_in_the_file_ends_the_daemon_with_the_way_back() {
    let killed = Killed::new().await;
    let effects = killed.every.scene.org.effects().len();
    let (page, length) = (killed.page_size(), killed.whole.len() as u64);
    let damaged = "the state file is damaged";
    let in_page = |number: u64| (number - 1) * page;
    let [table, index] = ["event_body", "event_key"].map(|name| in_page(killed.leaf_of(name)));
    killed.check("a table", overwrite(table + 8, &[0xaa; 8]), damaged).await;
    killed.check("the head of a table's page", overwrite(table, &[0; 64]), damaged).await;
    killed.check("an index", overwrite(index + page - 400, &[0x31; 300]), damaged).await;
    let first_free = u32::from_be_bytes(killed.whole[32..36].try_into().unwrap());
    assert!(first_free > 0, "there are free pages");
    killed.check("the list of free pages", overwrite(32, &[0, 0, 0, 2]), damaged).await;
    killed.check("the schema", overwrite(100, &[0xff; 40]), damaged).await;
    killed.check("half of the file", cut_to(length / 2 / page * page), damaged).await;
    killed.check("a part of a page", cut_to(length / 2 / page * page + 100), damaged).await;
    let not_ours = "the file is no state file of okta-responder";
    killed.check("the magic words", overwrite(0, b"sqlite"), not_ours).await;
    killed.check("zeros", |state| fs::write(state, vec![0; 65536]).unwrap(), not_ours).await;
    killed.check("text", |state| fs::write(state, "state = \"fine\"\n".repeat(99)).unwrap(), not_ours).await;
    killed.check("nothing", cut_to(0), "is empty: its cursor and its records are gone").await;
    assert_eq!(killed.every.scene.org.effects().len(), effects, "nothing was done on the strength of a damaged file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_known_to_be_damaged_is_not_worked_on_again() {
    let killed = Killed::new().await;
    let index = (killed.leaf_of("event_key") - 1) * killed.page_size();
    killed
        .check("an index", overwrite(index + killed.page_size() - 400, &[0x31; 300]), "the state file is damaged")
        .await;
    let asked = killed.every.scene.org.requests().len();
    let mut daemon = killed.every.scene.daemon();
    assert_eq!(daemon.wait().code(), Some(78), "{}", daemon.log());
    assert!(daemon.log().contains("found damaged before"), "{}", daemon.log());
    assert_eq!(killed.every.scene.org.requests().len(), asked, "it is checked before anything is asked");

    // Mended, it is taken up again.
    Connection::open(killed.state()).unwrap().execute_batch("REINDEX").unwrap();
    let daemon = killed.every.scene.daemon();
    daemon.wait_for_log("the state file is whole");
    daemon.wait_for_log("ready");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_checked_after_a_kill_and_not_after_a_stop_in_order() {
    let every = Every::new(&["add"], "").await;
    let daemon = every.scene.daemon();
    daemon.wait_for_log("ready");
    daemon.kill();
    let daemon = every.scene.daemon();
    daemon.wait_for_log("the last stop was not in order");
    daemon.wait_for_log("the state file is whole");
    assert!(daemon.stop().success());
    let daemon = every.scene.daemon();
    daemon.wait_for_log("ready");
    let log = daemon.log();
    assert!(daemon.stop().success());
    assert!(!log.contains("not in order") && !log.contains("whole"), "{log}");
    let told = every.scene.command(&["check", "--state"]);
    assert!(told.status.success() && String::from_utf8_lossy(&told.stdout).contains("is whole"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_log_takes_the_file_back_a_little_and_nothing_is_done_twice() {
    let every = Every::new(&["add", "incident"], "").await;
    let daemon = every.scene.daemon();
    daemon.wait_for_log("ready");
    every.push();
    Ledger::of(&every.scene).await.at_rest(1).await;
    daemon.kill();
    let log = PathBuf::from(format!("{}-wal", every.scene.state().display()));
    let length = fs::metadata(&log).unwrap().len();
    assert!(length > 10 * 8192, "there is something to tear: {length}");
    overwrite(length / 2, &[0x55; 512])(&log);
    let daemon = every.scene.daemon();
    // Where the tear took the first words of this daemon's predecessor back as well, there is no kill to be seen.
    daemon.wait_for_log("ready: ");
    let ledger = Ledger::of(&every.scene).await;
    let actions = ledger.at_rest(1).await;
    assert_eq!(actions.len(), 2, "{}", support::ledger::told(&actions));
    for step in ["add", "incident"] {
        let changed = every.effects(step).iter().filter(|effect| effect.changed).count();
        assert_eq!(changed, 1, "{step}: {}", daemon.log());
    }
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_another_file_is_not_written_over_a_copy() {
    let every = Every::new(&["add"], "").await;
    let daemon = every.scene.daemon();
    daemon.wait_for_log("ready");
    let copy = every.scene.dir.path().join("copy.db");
    assert!(every.scene.command(&["backup", &copy.display().to_string()]).status.success());
    every.push();
    Ledger::of(&every.scene).await.at_rest(1).await;
    daemon.kill();
    fs::copy(&copy, every.scene.state()).unwrap();
    let mut daemon = every.scene.daemon();
    assert_eq!(daemon.wait().code(), Some(78), "{}", daemon.log());
    assert!(daemon.log().contains("is the log of another state file"), "{}", daemon.log());
    assert_eq!(fs::read(&copy).unwrap(), fs::read(every.scene.state()).unwrap(), "nothing was written");
}

/// A state file as the first version left it: with a stream that has begun, and an event in the log that it has not read.
fn first_version(every: &Every) {
    let state = every.scene.state();
    let old = Connection::open(&state).unwrap();
    old.execute_batch("PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL").unwrap();
    old.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
    old.execute_batch(include_str!("../migrations/01-initial/up.sql")).unwrap();
    let now = every.scene.org.now();
    every.push();
    old.execute(
        "INSERT INTO stream (source, kind, state, query, since, began, created_at, updated_at)
         VALUES ('okta', 'live', 'active', '', ?1, ?1, ?1, ?1)",
        [now.as_millisecond() - 3_600_000],
    )
    .unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    old.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_around_and_inside_of_migrations_it_goes_on_from_the_old_schema_or_the_new_one() {
    let migrations = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap().count();
    for old in [false, true] {
        let pending = if old { migrations - 1 } else { migrations };
        let every = Every::new(&["add", "incident"], "").await;
        if old {
            first_version(&every);
        } else {
            every.push();
        }
        for point in Point::OF_A_MIGRATION {
            let times = if point == Point::InsideMigration { pending } else { pending.min(1) };
            for time in 1..=times {
                let at = format!("{}:{time}", point.name());
                let daemon = Daemon::start(&every.scene.config(), &[(HALT_AT, &at)]);
                if point == Point::Migrated && old {
                    // Every kill before this one has left the old schema.
                    let version: i64 = Connection::open(every.scene.state())
                        .unwrap()
                        .query_row("PRAGMA user_version", [], |row| row.get(0))
                        .unwrap();
                    assert!(version == 1 || version == migrations as i64);
                }
                daemon.wait_for_log(&format!("halted at {}", point.name()));
                daemon.kill();
            }
        }
        let daemon = every.scene.daemon();
        let ledger = Ledger::of(&every.scene).await;
        let actions = ledger.at_rest(1).await;
        assert_eq!(actions.len(), 2, "{}", daemon.log());
        for step in ["add", "incident"] {
            assert_eq!(every.effects(step).len(), 1, "{step}: {}", daemon.log());
        }
        assert!(daemon.stop().success());
        assert!(every.scene.command(&["check", "--state"]).status.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_newer_version_is_refused_and_left_as_it_is() {
    let every = Every::new(&["add"], "").await;
    drop(Store::open(&every.scene.state()).unwrap());
    let newer = Connection::open(every.scene.state()).unwrap();
    newer.pragma_update(None, "user_version", 1000).unwrap();
    newer.close().unwrap();
    let before = fs::read(every.scene.state()).unwrap();
    for command in [&["run"][..], &["status"], &["pause"], &["check", "--state"], &["backup", "copy.db"]] {
        let refused = every.scene.command(command);
        let told = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(78), "{command:?}: {told}");
        assert!(told.contains("schema version 1000, which is newer than this program knows"), "{command:?}: {told}");
    }
    assert_eq!(fs::read(every.scene.state()).unwrap(), before);
}
