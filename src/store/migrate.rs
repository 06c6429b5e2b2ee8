//! Opening the file: settings, schema, and refusing what a newer version wrote.

use include_dir::{Dir, include_dir};
use rusqlite::{Connection, Transaction};
use rusqlite_migration::{Migrations, MigrationsBuilder, SchemaVersion};

use super::{BUSY_TIMEOUT, StoreError};
use crate::halt::{self, Point};

static DIRECTORY: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/migrations");

/// Settings that hold for every connection. `synchronous=FULL` makes each commit durable in WAL mode: an attempt row
/// must be on the disk before its request leaves.
pub(super) fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.execute_batch("PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY;")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// Gives a new, empty file its settings and its schema.
pub(super) fn begin(connection: &mut Connection) -> Result<(), StoreError> {
    connection.execute_batch("PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL;")?;
    go_up(connection)
}

/// Brings the schema of a file that we write to up to date, in one transaction.
pub(super) fn to_latest(connection: &mut Connection) -> Result<(), StoreError> {
    match check_current(connection) {
        Ok(()) | Err(StoreError::Older) => go_up(connection),
        Err(error) => Err(error),
    }
}

fn go_up(connection: &mut Connection) -> Result<(), StoreError> {
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    let migrations = migrations()?;
    let pending = migrations.pending_migrations(connection).map_err(StoreError::migration)? > 0;
    if pending {
        halt::point(Point::BeforeMigration);
    }
    migrations.to_latest(connection).map_err(StoreError::migration)?;
    if pending {
        halt::point(Point::Migrated);
    }
    Ok(())
}

/// Whether the file has exactly the schema that this version reads.
pub(super) fn check_current(connection: &Connection) -> Result<(), StoreError> {
    let migrations = migrations()?;
    match migrations.current_version(connection).map_err(StoreError::migration)? {
        SchemaVersion::Outside(found) => Err(StoreError::Newer { found: found.get() }),
        SchemaVersion::NoneSet => Err(StoreError::NotOurs),
        SchemaVersion::Inside(_) if migrations.pending_migrations(connection).map_err(StoreError::migration)? > 0 => {
            Err(StoreError::Older)
        }
        SchemaVersion::Inside(_) => Ok(()),
    }
}

fn migrations() -> Result<Migrations<'static>, StoreError> {
    let mut builder = MigrationsBuilder::from_directory(&DIRECTORY).map_err(StoreError::migration)?;
    for number in 1..=DIRECTORY.dirs().count() {
        // Inside the transaction of all of them.
        builder = builder.edit(number, |migration| {
            migration.set_up_hook(|_: &Transaction<'_>| {
                halt::point(Point::InsideMigration);
                Ok(())
            })
        });
    }
    Ok(builder.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::action::ActionState;

    #[test]
    fn migrations_are_valid() {
        migrations().unwrap().validate().unwrap();
    }

    #[test]
    fn the_schema_knows_exactly_the_states_of_the_code() {
        let schema = DIRECTORY.get_file("01-initial/up.sql").unwrap().contents_utf8().unwrap();
        let list = schema.split("CHECK (state IN ('waiting'").nth(1).unwrap().split("))").next().unwrap();
        let mut in_schema: Vec<&str> = list.split('\'').skip(1).step_by(2).collect();
        in_schema.push("waiting");
        let mut in_code: Vec<&str> = ActionState::ALL.iter().map(|state| state.as_str()).collect();
        in_schema.sort_unstable();
        in_code.sort_unstable();
        assert_eq!(in_schema, in_code);
    }
}
