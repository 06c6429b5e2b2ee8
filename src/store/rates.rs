//! What the daemon knows of Okta's rate limits, for commands beside it.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use super::{Store, StoreError, from_ms, from_optional_ms, to_ms};

/// Okta's rate limits as a daemon saw them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RateSnapshot {
    /// When, by this machine's clock.
    pub at: Timestamp,
    /// Requests that may be under way at once.
    pub at_once: u32,
    /// The buckets that were asked.
    pub buckets: Vec<RateRow>,
}

/// A bucket, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RateRow {
    /// Which paths.
    pub bucket: String,
    /// Requests per minute that Okta grants to everybody; null before it was heard.
    pub limit: Option<u32>,
    /// Requests per minute that are ours.
    pub share: Option<u32>,
    /// Requests of ours in the last minute; null when that was long ago.
    pub used: Option<u64>,
    /// What was left of Okta's minute for everybody; null when that minute is over.
    pub remaining: Option<u32>,
    /// When that minute ends.
    pub resets_at: Option<Timestamp>,
    /// Requests of ours that waited for their turn.
    pub waiting: Option<u64>,
    /// Requests since the daemon's start.
    pub requests: u64,
    /// 429s since the daemon's start, because the bucket was used up.
    pub refused: u64,
    /// The last one.
    pub refused_at: Option<Timestamp>,
    /// 429s since the daemon's start, because the org had too many requests under way at once.
    pub crowded: u64,
    /// The last one.
    pub crowded_at: Option<Timestamp>,
}

impl RateSnapshot {
    /// Leaves out what is only true for a minute.
    pub fn grow_old(&mut self) {
        for row in &mut self.buckets {
            (row.used, row.remaining, row.resets_at, row.waiting) = (None, None, None, None);
        }
    }
}

impl Store {
    /// Replaces what is told of Okta's rate limits.
    pub async fn note_rates(&self, rates: RateSnapshot) -> Result<(), StoreError> {
        self.write(move |connection| note(connection, &rates)).await
    }
}

pub(super) fn note(connection: &Connection, rates: &RateSnapshot) -> Result<(), StoreError> {
    connection.execute(
        "INSERT INTO rate (id, at, at_once) VALUES (1, ?1, ?2)
         ON CONFLICT (id) DO UPDATE SET at = excluded.at, at_once = excluded.at_once",
        params![to_ms(rates.at), rates.at_once],
    )?;
    connection.execute("DELETE FROM rate_bucket", [])?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO rate_bucket (bucket, granted, share, used, remaining, resets_at, waiting, requests, refused,
                                  refused_at, crowded, crowded_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?;
    for row in &rates.buckets {
        insert.execute(params![
            row.bucket,
            row.limit,
            row.share,
            row.used.unwrap_or_default(),
            row.remaining,
            row.resets_at.map(to_ms),
            row.waiting.unwrap_or_default(),
            row.requests,
            row.refused,
            row.refused_at.map(to_ms),
            row.crowded,
            row.crowded_at.map(to_ms),
        ])?;
    }
    Ok(())
}

/// What was told last; `None` when no daemon ever asked Okta for anything.
pub(super) fn told(connection: &Connection) -> Result<Option<RateSnapshot>, StoreError> {
    let head: Option<(i64, u32)> =
        connection.query_row("SELECT at, at_once FROM rate", [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((at, at_once)) = head else { return Ok(None) };
    let mut rows = connection.prepare_cached(
        "SELECT bucket, granted, share, used, remaining, resets_at, waiting, requests, refused, refused_at, crowded,
                crowded_at
         FROM rate_bucket ORDER BY bucket",
    )?;
    let buckets = rows.query_map([], |row| Ok(bucket(row)))?.map(|row| row?).collect::<Result<_, _>>()?;
    Ok(Some(RateSnapshot { at: from_ms(at)?, at_once, buckets }))
}

fn bucket(row: &Row<'_>) -> Result<RateRow, StoreError> {
    Ok(RateRow {
        bucket: row.get(0)?,
        limit: row.get(1)?,
        share: row.get(2)?,
        used: row.get(3)?,
        remaining: row.get(4)?,
        resets_at: from_optional_ms(row.get(5)?)?,
        waiting: row.get(6)?,
        requests: row.get(7)?,
        refused: row.get(8)?,
        refused_at: from_optional_ms(row.get(9)?)?,
        crowded: row.get(10)?,
        crowded_at: from_optional_ms(row.get(11)?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_told_of_the_rate_limits_replaces_what_was_told_before() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.db")).unwrap();
        let at = Timestamp::from_millisecond(1_800_000_000_123).unwrap();
        assert_eq!(store.status(at).await.unwrap().rates, None);
        let row = |bucket: &str| RateRow {
            bucket: bucket.to_owned(),
            limit: Some(120),
            share: Some(60),
            used: Some(58),
            remaining: Some(u32::MAX),
            resets_at: Some(at),
            waiting: Some(3),
            requests: 1000,
            refused: 1,
            refused_at: None,
            crowded: 2,
            crowded_at: Some(at),
        };
        let first = RateSnapshot { at, at_once: 37, buckets: vec![row("logs"), row("users")] };
        let unheard = RateRow { limit: None, share: None, remaining: None, resets_at: None, ..row("groups") };
        let second = RateSnapshot { at, at_once: 18, buckets: vec![unheard] };
        for rates in [first, second] {
            store.note_rates(rates.clone()).await.unwrap();
            assert_eq!(store.status(at).await.unwrap().rates, Some(rates));
        }
    }
}
