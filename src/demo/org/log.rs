//! The System Log and `GET /api/v1/logs` (Okta System Log query guide).
//!
//! An event has two moments: when it was *published*, and when it was *persisted*, which is when it was pushed here. A
//! polling query (no `until`, ascending) is ordered by the second, is complete and has no last page; a bounded one is
//! ordered by the first, and ends.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Extension, Query, State};
use axum::http::header::{CONTENT_TYPE, LINK};
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::Value;
use url::form_urlencoded;

use super::events;
use super::filter::EventTypes;
use super::oauth::Principal;
use super::okta::{JSON, OktaError, link};
use super::synthetic::Synthetic;
use super::world::World;

/// What Okta keeps.
const RETENTION_MS: i64 = 90 * DAY_MS;

/// A `since` older than this is refused.
const OLDEST_SINCE_MS: i64 = 180 * DAY_MS;

/// How far back a query without `since` reaches.
const DEFAULT_SINCE_MS: i64 = 7 * DAY_MS;

const DAY_MS: i64 = 24 * 3600 * 1000;

/// The log: synthetic events first, then those that were pushed. An event's index is its place in persistence order.
#[derive(Debug)]
pub(super) struct Log {
    synthetic: Synthetic,
    pushed: Vec<Pushed>,
    /// The cursors that were given out, and where each goes on.
    cursors: HashMap<String, Position>,
}

#[derive(Debug)]
struct Pushed {
    text: String,
    event_type: String,
    published_ms: i64,
    persisted_ms: i64,
}

/// Where a cursor goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// A polling query: with the event of this index.
    Index(u64),
    /// A bounded query: behind the event of this moment and index.
    Behind(i64, u64),
}

/// One page.
#[derive(Debug)]
struct Page {
    body: String,
    empty: bool,
    /// The cursor of the next page; `None` on the last.
    next: Option<String>,
}

/// A bounded query.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    since_ms: i64,
    until_ms: i64,
    behind: Option<(i64, u64)>,
    descending: bool,
}

impl Log {
    pub(super) fn new(synthetic: Synthetic) -> Self {
        Self { synthetic, pushed: Vec::new(), cursors: HashMap::new() }
    }

    /// Appends an event, adding `uuid` and `published` where they are missing, and returns its uuid.
    pub(super) fn push(&mut self, mut event: Value, now_ms: i64) -> String {
        let text = |event: &Value, key: &str| event.get(key).and_then(Value::as_str).map(str::to_owned);
        let uuid = text(&event, "uuid").unwrap_or_else(|| {
            let number = self.len();
            let uuid = format!("{:08x}-51a1-11f0-8000-{number:012x}", number.wrapping_mul(0x9e37_79b1) as u32);
            events::set(&mut event, &["uuid"], Value::from(uuid.as_str()));
            uuid
        });
        let published = text(&event, "published").unwrap_or_else(|| {
            let now = format!("{:.3}", Timestamp::from_millisecond(now_ms).unwrap_or_default());
            events::set(&mut event, &["published"], Value::from(now.as_str()));
            now
        });
        let published_ms = published.parse::<Timestamp>().map_or(now_ms, Timestamp::as_millisecond);
        let event_type = text(&event, "eventType").unwrap_or_default();
        self.append(Pushed { text: event.to_string(), event_type, published_ms, persisted_ms: now_ms });
        uuid
    }

    /// Appends text as it is, whatever it is; with a filter it only appears under `event_type`.
    pub(super) fn push_raw(&mut self, text: &str, event_type: &str, now_ms: i64) {
        self.append(Pushed {
            text: text.to_owned(),
            event_type: event_type.to_owned(),
            published_ms: now_ms,
            persisted_ms: now_ms,
        });
    }

    /// The uuids of the pushed events of a type.
    pub(super) fn uuids_of(&self, event_type: &str) -> Vec<String> {
        let uuid =
            |event: &Pushed| Some(serde_json::from_str::<Value>(&event.text).ok()?.get("uuid")?.as_str()?.to_owned());
        self.pushed.iter().filter(|event| event.event_type == event_type).filter_map(uuid).collect()
    }

    pub(super) fn forget_cursors(&mut self) {
        self.cursors.clear();
    }

    pub(super) fn len(&self) -> u64 {
        self.synthetic.count() + self.pushed.len() as u64
    }

    /// Persistence times never go back, even if the clock of the org does.
    fn append(&mut self, mut event: Pushed) {
        let newest = self.len().checked_sub(1).map_or(i64::MIN, |last| self.persisted_ms(last));
        event.persisted_ms = event.persisted_ms.max(newest);
        self.pushed.push(event);
    }

    fn pushed(&self, index: u64) -> Option<&Pushed> {
        let place = index.checked_sub(self.synthetic.count())?;
        self.pushed.get(usize::try_from(place).ok()?)
    }

    fn persisted_ms(&self, index: u64) -> i64 {
        self.pushed(index).map_or_else(|| self.synthetic.time_ms(index), |event| event.persisted_ms)
    }

    fn event_type(&self, index: u64) -> &str {
        self.pushed(index).map_or_else(|| self.synthetic.event_type(index), |event| &event.event_type)
    }

    fn render(&self, index: u64, out: &mut String) {
        match self.pushed(index) {
            Some(event) => out.push_str(&event.text),
            None => self.synthetic.render(index, out),
        }
    }

    /// The first index that was persisted at `ms` or later.
    fn first_persisted_from(&self, ms: i64) -> u64 {
        let synthetic = self.synthetic.first_from(ms);
        if synthetic < self.synthetic.count() {
            return synthetic;
        }
        synthetic + self.pushed.partition_point(|event| event.persisted_ms < ms) as u64
    }

    /// A page of a polling query. It always has a next one.
    fn poll(&mut self, from: u64, wanted: &EventTypes, limit: usize) -> Page {
        let end = self.len();
        let mut writer = ArrayWriter::new(limit.min(usize::try_from(end.saturating_sub(from)).unwrap_or(limit)));
        let mut index = from;
        while index < end && writer.count < limit {
            if wanted.contains(self.event_type(index)) {
                self.render(index, writer.item());
            }
            index += 1;
        }
        let moment = index.checked_sub(1).map_or(0, |last| self.persisted_ms(last));
        let cursor = format!("{moment}_{index}");
        self.cursors.insert(cursor.clone(), Position::Index(index));
        Page { empty: writer.count == 0, body: writer.finish(), next: Some(cursor) }
    }

    /// A page of a bounded query, ordered by `published`. The last has no next one.
    fn read_bounded(&mut self, bounds: Bounds, wanted: &EventTypes, limit: usize) -> Page {
        let mut keys = self.pushed_between(bounds, wanted);
        keys.extend(self.synthetic_between(bounds, wanted, limit.saturating_add(1)));
        keys.sort_unstable();
        if bounds.descending {
            keys.reverse();
        }
        let more = keys.len() > limit;
        keys.truncate(limit);
        let mut writer = ArrayWriter::new(keys.len());
        for (_, index) in &keys {
            self.render(*index, writer.item());
        }
        let next = keys.last().filter(|_| more).map(|(moment, index)| {
            let cursor = format!("{moment}_1_{index}");
            self.cursors.insert(cursor.clone(), Position::Behind(*moment, *index));
            cursor
        });
        Page { empty: keys.is_empty(), body: writer.finish(), next }
    }

    fn pushed_between(&self, bounds: Bounds, wanted: &EventTypes) -> Vec<(i64, u64)> {
        (self.synthetic.count()..)
            .zip(&self.pushed)
            .map(|(index, event)| ((event.published_ms, index), event))
            .filter(|(key, event)| bounds.contains(*key) && wanted.contains(&event.event_type))
            .map(|(key, _)| key)
            .collect()
    }

    /// At most `limit` synthetic events, in the order of the query.
    fn synthetic_between(&self, bounds: Bounds, wanted: &EventTypes, limit: usize) -> Vec<(i64, u64)> {
        let log = &self.synthetic;
        let (from, until) = (log.first_from(bounds.since_ms), log.first_from(bounds.until_ms));
        let taken =
            |index: &u64| bounds.contains((log.time_ms(*index), *index)) && wanted.contains(log.event_type(*index));
        let key = |index: u64| (log.time_ms(index), index);
        match (bounds.descending, bounds.behind) {
            (false, behind) => {
                let from = behind.map_or(from, |(moment, _)| from.max(log.first_from(moment)));
                (from..until).filter(taken).take(limit).map(key).collect()
            }
            (true, behind) => {
                let until = behind.map_or(until, |(moment, _)| until.min(log.first_from(moment.saturating_add(1))));
                (from..until).rev().filter(taken).take(limit).map(key).collect()
            }
        }
    }
}

impl Bounds {
    fn contains(&self, key: (i64, u64)) -> bool {
        let reached = match self.behind {
            None => true,
            Some(behind) if self.descending => key < behind,
            Some(behind) => key > behind,
        };
        reached && (self.since_ms..self.until_ms).contains(&key.0)
    }
}

/// Writes a JSON array of texts that are JSON already.
struct ArrayWriter {
    text: String,
    count: usize,
}

impl ArrayWriter {
    fn new(expected: usize) -> Self {
        let mut text = String::with_capacity(expected.min(1000) * 2304 + 2);
        text.push('[');
        Self { text, count: 0 }
    }

    /// Begins the next item.
    fn item(&mut self) -> &mut String {
        if self.count > 0 {
            self.text.push(',');
        }
        self.count += 1;
        &mut self.text
    }

    fn finish(mut self) -> String {
        self.text.push(']');
        self.text
    }
}

/// `GET /api/v1/logs`
pub(super) async fn read(
    State(world): State<Arc<World>>,
    Extension(by): Extension<Principal>,
    uri: Uri,
    Query(parameters): Query<HashMap<String, String>>,
) -> Result<Response, OktaError> {
    let now_ms = world.clock.now_ms();
    let given = |name: &str| parameters.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let since = given("since").map(|text| moment("since", text)).transpose()?;
    let until = given("until").map(|text| moment("until", text)).transpose()?;
    let wanted = EventTypes::parse(given("filter").unwrap_or_default()).map_err(OktaError::invalid_filter)?;
    let wanted = if by.sees_risk_events(&world) { wanted } else { wanted.without("user.risk.") };
    let limit = given("limit").map_or(Ok(100), str::parse::<usize>).ok().filter(|limit| *limit <= 1000);
    let limit = limit
        .ok_or_else(|| OktaError::validation("limit", "The limit parameter must be an integer between 0 and 1000."))?;
    let descending = match given("sortOrder").unwrap_or("ASCENDING") {
        "ASCENDING" => false,
        "DESCENDING" => true,
        _ => return Err(OktaError::validation("sortOrder", "The sort order must be ASCENDING or DESCENDING.")),
    };
    if since.is_some_and(|since| since < now_ms - OLDEST_SINCE_MS) {
        return Err(OktaError::invalid_filter(
            "Invalid parameter: The since parameter is over 180 days prior to the current day.".to_owned(),
        ));
    }
    let polling = until.is_none() && !descending;
    let until_ms = until.unwrap_or(now_ms + 1);
    let since_ms = since.unwrap_or(until_ms - DEFAULT_SINCE_MS).max(now_ms - RETENTION_MS);
    let page = world.read(|inside| {
        let log = &mut inside.log;
        let position = match given("after") {
            Some(cursor) => Some(*log.cursors.get(cursor).ok_or_else(OktaError::unknown_cursor)?),
            None => None,
        };
        match (polling, position) {
            (true, None) => Ok(log.poll(log.first_persisted_from(since_ms), &wanted, limit)),
            (true, Some(Position::Index(from))) => Ok(log.poll(from, &wanted, limit)),
            (false, None) => {
                Ok(log.read_bounded(Bounds { since_ms, until_ms, behind: None, descending }, &wanted, limit))
            }
            (false, Some(Position::Behind(moment, index))) => {
                let behind = Some((moment, index));
                Ok(log.read_bounded(Bounds { since_ms, until_ms, behind, descending }, &wanted, limit))
            }
            _ => Err(OktaError::unknown_cursor()),
        }
    })?;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    headers.append(LINK, link(&format!("{}{uri}", world.okta_url()), "self"));
    let hidden = page.empty && world.options.omit_next_on_empty;
    if let Some(cursor) = page.next.filter(|_| !hidden) {
        headers.append(LINK, link(&next_url(&world, &parameters, polling, &cursor), "next"));
    }
    Ok((headers, page.body).into_response())
}

/// Everything that shapes the query travels in the link, so that a client only has to follow it.
fn next_url(world: &World, parameters: &HashMap<String, String>, polling: bool, cursor: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("after", cursor);
    for name in ["since", "until", "filter", "sortOrder", "limit"] {
        if let Some(value) = parameters.get(name).filter(|_| !(polling && name == "since")) {
            query.append_pair(name, value);
        }
    }
    let origin = world.options.next_origin.clone().unwrap_or_else(|| world.okta_url());
    format!("{origin}/api/v1/logs?{}", query.finish())
}

fn moment(name: &str, text: &str) -> Result<i64, OktaError> {
    text.parse::<Timestamp>().map(Timestamp::as_millisecond).map_err(|_| {
        OktaError::validation(
            name,
            "The date format in your query is not recognized. Please enter dates in ISO8601 format.",
        )
    })
}
