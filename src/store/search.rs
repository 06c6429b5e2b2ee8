//! Searching the inbox for what conditions ask of the past.

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params_from_iter};
use serde_json::Value;

use super::{Store, StoreError, to_ms};
use crate::playbook::past::{By, Goal, MAX_COUNTED, Search, Trait};

impl Store {
    /// What a search finds, by the inbox as it is: a count, or for [`Goal::With`] one or none. At most [`MAX_COUNTED`] events
    /// are looked at, the newest ones. What we caused ourselves does not count once it is known to be ours.
    pub async fn search(&self, search: Search) -> Result<u64, StoreError> {
        self.read(move |connection| find(connection, &search)).await
    }
}

fn find(connection: &Connection, search: &Search) -> Result<u64, StoreError> {
    let column = match search.by.0 {
        By::User => "subject",
        By::Actor => "actor",
        By::Ip => "ip",
    };
    // Of what was seen before, the event in question is no part.
    let (goal, other_than, wanted) = match &search.goal {
        Goal::Events => ("count(*)", None, None),
        Goal::Users => ("count(DISTINCT subject)", None, None),
        Goal::With(what, value) => {
            let same = match what {
                Trait::Country => "coalesce(max(country = ?8), 0)",
                Trait::Device => "coalesce(max(device = ?8), 0)",
                Trait::Ip => "coalesce(max(ip = ?8), 0)",
            };
            (same, Some(search.uuid.clone()), Some(value.clone()))
        }
    };
    let sql = format!(
        "SELECT {goal} FROM (
            SELECT e.subject, e.uuid, e.country, e.device, e.ip
            FROM event e
            WHERE e.{column} = ?1 AND e.type IN (SELECT value FROM json_each(?2))
              AND e.published > ?3 AND e.published <= ?4 AND e.source = ?5
              AND (?6 IS NULL OR e.outcome = ?6)
              AND NOT (e.state = 'skipped' AND coalesce(e.reason, '') = 'own')
            ORDER BY e.published DESC LIMIT {MAX_COUNTED})
         WHERE uuid <> coalesce(?7, '')"
    );
    let text = |text: Option<String>| text.map_or(Sql::Null, Sql::Text);
    let values = [
        Sql::Text(search.by.1.clone()),
        Sql::Text(Value::from(search.types.clone()).to_string()),
        Sql::Integer(to_ms(search.after)),
        Sql::Integer(to_ms(search.until)),
        Sql::Text(search.source.clone()),
        text(search.outcome.clone()),
        text(other_than),
    ];
    let values = values.into_iter().chain(wanted.map(Sql::Text));
    Ok(connection.prepare_cached(&sql)?.query_row(params_from_iter(values), |row| row.get(0))?)
}
