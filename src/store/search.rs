//! Searching the inbox for what conditions ask of the past.

use std::collections::BTreeSet;

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params_from_iter};
use serde_json::{Map, Value};

use super::{Store, StoreError, to_ms};
use crate::model::event::Event;
use crate::playbook::Question;
use crate::playbook::past::{By, Goal, MAX_COUNTED, Search, Trait};

impl Store {
    /// What a search finds, by the inbox as it is: a count, or for [`Goal::With`] one or none. At most [`MAX_COUNTED`] events
    /// are looked at, the newest ones. What we caused ourselves does not count once it is known to be ours.
    pub async fn search(&self, search: Search) -> Result<u64, StoreError> {
        self.read(move |connection| find(connection, &search)).await
    }
}

impl Store {
    /// The answers to what is asked of the past about an event, as [`Fact::Past`](crate::playbook::Fact::Past) holds them.
    pub async fn answers(&self, questions: &BTreeSet<&Question>, event: &Event) -> Result<Value, StoreError> {
        let mut answers = Map::new();
        for question in questions {
            let found = match question.about(event) {
                Ok(search) => Ok(self.search(search).await?),
                Err(why) => Err(why),
            };
            answers.insert(question.to_string(), question.answer(found));
        }
        Ok(Value::Object(answers))
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
    // Of one type the index has the events in order, and no more of them are read than are counted.
    let (types, of_type) = match search.types.as_slice() {
        [one] => (one.clone(), "= ?2"),
        many => (Value::from(many).to_string(), "IN (SELECT value FROM json_each(?2))"),
    };
    let sql = format!(
        "SELECT {goal} FROM (
            SELECT e.subject, e.uuid, e.country, e.device, e.ip
            FROM event e
            WHERE e.{column} = ?1 AND e.type {of_type}
              AND e.published > ?3 AND e.published <= ?4 AND e.source = ?5
              AND (?6 IS NULL OR e.outcome = ?6)
              AND NOT (e.state = 'skipped' AND coalesce(e.reason, '') = 'own')
            ORDER BY e.published DESC LIMIT {MAX_COUNTED})
         WHERE uuid <> coalesce(?7, '')"
    );
    let text = |text: Option<String>| text.map_or(Sql::Null, Sql::Text);
    let values = [
        Sql::Text(search.by.1.clone()),
        Sql::Text(types),
        Sql::Integer(to_ms(search.after)),
        Sql::Integer(to_ms(search.until)),
        Sql::Text(search.source.clone()),
        text(search.outcome.clone()),
        text(other_than),
    ];
    let values = values.into_iter().chain(wanted.map(Sql::Text));
    Ok(connection.prepare_cached(&sql)?.query_row(params_from_iter(values), |row| row.get(0))?)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use rusqlite::Connection;
    use serde_json::json;

    use super::*;
    use crate::model::event::SOURCE_OKTA;
    use crate::playbook::Condition;
    use crate::store::migrate;

    /// Minutes before the event in question, its user, address, country, outcome and state.
    type Row = (&'static str, i64, &'static str, &'static str, Option<&'static str>, &'static str, &'static str);

    const TYPE: &str = "user.session.start";

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + minute * 60).unwrap()
    }

    /// The event in question happens at minute 0 to Ann, from 192.0.2.1 in Chad.
    #[track_caller]
    fn check(question: &str, expected: u64) {
        let rows: [Row; 8] = [
            ("itself", 0, "ann", "192.0.2.1", Some("Chad"), "SUCCESS", "new"),
            ("recent", -10, "ann", "192.0.2.1", Some("Peru"), "FAILURE", "decided"),
            ("edge", -60, "ann", "192.0.2.1", Some("Peru"), "SUCCESS", "decided"),
            ("older", -90, "ann", "192.0.2.9", Some("Chad"), "FAILURE", "decided"),
            ("later", 10, "ann", "192.0.2.1", Some("Chad"), "SUCCESS", "new"),
            ("other", -5, "bob", "192.0.2.1", None, "FAILURE", "decided"),
            ("third", -6, "cid", "192.0.2.1", None, "FAILURE", "held"),
            ("own", -7, "ann", "192.0.2.1", None, "FAILURE", "skipped"),
        ];
        let mut connection = Connection::open_in_memory().unwrap();
        migrate::begin(&mut connection).unwrap();
        connection
            .execute(
                "INSERT INTO stream (id, source, kind, state, query, since, began, created_at, updated_at)
                 VALUES (1, 'okta', 'live', 'active', '', 0, 0, 0, 0)",
                [],
            )
            .unwrap();
        for (uuid, minute, user, ip, country, outcome, state) in rows {
            connection
                .execute(
                    "INSERT INTO event (source, uuid, type, published, received_at, stream, subject, backfill, state,
                                        reason, ip, country, outcome)
                     VALUES ('okta', ?1, ?2, ?3, 0, 1, ?4, 0, ?5, iif(?5 = 'skipped', 'own', NULL), ?6, ?7, ?8)",
                    rusqlite::params![uuid, TYPE, to_ms(at(minute)), user, state, ip, country, outcome],
                )
                .unwrap();
        }
        let body = json!({"uuid": "itself", "eventType": TYPE, "published": at(0).to_string(),
            "target": [{"type": "User", "id": "ann"}],
            "client": {"ipAddress": "192.0.2.1", "geographicalContext": {"country": "Chad"}}});
        let event = Event::parse(SOURCE_OKTA, &body.to_string()).unwrap();
        let condition = Condition::compile(&format!("type({question}) == null_type")).unwrap();
        let search = condition.questions().next().unwrap().about(&event).unwrap();
        assert_eq!(find(&connection, &search).unwrap(), expected, "{question}");
    }

    #[test]
    fn a_count_takes_in_the_event_itself_and_neither_what_was_later_nor_what_was_ours() {
        check(r#"count("user.session.start", "1h")"#, 2);
        check(r#"count("user.session.start", "61m")"#, 3);
        check(r#"count(["user.session.start", "user.session.end"], "2h")"#, 4);
        check(r#"count("user.session.end", "2h")"#, 0);
        check(r#"count("user.session.start", "2h", "user", "FAILURE")"#, 2);
    }

    #[test]
    fn by_the_address_the_users_of_all_are_counted() {
        check(r#"count("user.session.start", "1h", "ip")"#, 4);
        check(r#"count_users("user.session.start", "1h", "ip")"#, 3);
        check(r#"count_users("user.session.start", "1h", "ip", "FAILURE")"#, 3);
    }

    #[test]
    fn what_was_seen_before_is_not_the_event_itself() {
        check(r#"seen_before("country", "user.session.start", "1h")"#, 0);
        check(r#"seen_before("country", "user.session.start", "2h")"#, 1);
        check(r#"seen_before("country", "user.session.start", "2h", "SUCCESS")"#, 0);
        check(r#"seen_before("ip", "user.session.start", "1h")"#, 1);
    }
}
