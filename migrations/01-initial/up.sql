-- Moments are milliseconds since 1970-01-01T00:00:00Z. JSON columns hold JSON text. What people refer to by its number
-- (AUTOINCREMENT) never gets the number of something that is gone.

-- One resumable read of a source.
CREATE TABLE stream (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    source         TEXT    NOT NULL,
    kind           TEXT    NOT NULL CHECK (kind IN ('live', 'backfill')),
    state          TEXT    NOT NULL CHECK (state IN ('active', 'done', 'cancelled')),
    -- The server-side filter that the cursor belongs to; empty when the filter is applied on our side.
    query          TEXT    NOT NULL,
    -- The verbatim rel=next URL; null before the first page.
    next_url       TEXT,
    since          INTEGER NOT NULL,
    -- Where it was first meant to begin; it never begins again before that.
    began          INTEGER NOT NULL,
    until          INTEGER,
    execute        INTEGER NOT NULL DEFAULT 0 CHECK (execute IN (0, 1)),
    -- By the source's own clock.
    last_good_poll INTEGER,
    -- The newest `published` stored by this stream; tells how far a backfill is.
    newest         INTEGER,
    pages          INTEGER NOT NULL DEFAULT 0,
    stored         INTEGER NOT NULL DEFAULT 0,
    duplicates     INTEGER NOT NULL DEFAULT 0,
    unwanted       INTEGER NOT NULL DEFAULT 0,
    quarantined    INTEGER NOT NULL DEFAULT 0,
    restarts       INTEGER NOT NULL DEFAULT 0,
    -- What keeps the stream from going on, in words; null while it goes well.
    problem        TEXT,
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX stream_live ON stream (source) WHERE kind = 'live';

-- The inbox.
CREATE TABLE event (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    source      TEXT    NOT NULL,
    uuid        TEXT    NOT NULL,
    type        TEXT    NOT NULL,
    published   INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    stream      INTEGER NOT NULL REFERENCES stream (id),
    -- The id of the affected user.
    subject     TEXT,
    -- The level a risk event tells; null for every other event.
    risk        TEXT,
    -- Live events are decided before those of a backfill.
    backfill    INTEGER NOT NULL CHECK (backfill IN (0, 1)),
    -- Held: of an executing backfill that has not read to its end; only then is it known what is the newest state.
    state       TEXT    NOT NULL CHECK (state IN ('held', 'new', 'decided', 'skipped', 'superseded')),
    -- Why it was skipped, or what keeps it from being decided.
    reason      TEXT,
    postponed   INTEGER NOT NULL DEFAULT 0,
    retry_at    INTEGER
) STRICT;

CREATE UNIQUE INDEX event_key ON event (source, uuid);
CREATE INDEX event_new ON event (backfill, id) WHERE state = 'new';
CREATE INDEX event_held ON event (stream) WHERE state = 'held';
CREATE INDEX event_postponed ON event (subject, id) WHERE state = 'new' AND retry_at IS NOT NULL;
CREATE INDEX event_risk ON event (subject, published) WHERE risk IS NOT NULL;

-- Bodies stand apart, so that dropping an old body leaves the event known.
CREATE TABLE event_body (
    event INTEGER PRIMARY KEY REFERENCES event (id),
    body  TEXT NOT NULL
) STRICT;

-- Records that could not be read as events, kept as they came.
CREATE TABLE quarantine (
    id          INTEGER PRIMARY KEY,
    stream      INTEGER NOT NULL REFERENCES stream (id),
    received_at INTEGER NOT NULL,
    digest      TEXT    NOT NULL UNIQUE,
    error       TEXT    NOT NULL,
    raw         TEXT    NOT NULL
) STRICT;

-- One playbook applied to one event.
CREATE TABLE run (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    event      INTEGER NOT NULL REFERENCES event (id),
    playbook   TEXT    NOT NULL,
    mode       TEXT    NOT NULL CHECK (mode IN ('enforce', 'observe')),
    -- The facts that were fetched for it.
    facts      TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (event, playbook)
) STRICT;

-- One step of one run. Ids grow in event order, and inside a run in the order of `after`.
CREATE TABLE action (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    run         INTEGER NOT NULL REFERENCES run (id),
    step        TEXT    NOT NULL,
    kind        TEXT    NOT NULL,
    -- The service it speaks to: what stands before the first dot of its kind.
    service     TEXT    NOT NULL GENERATED ALWAYS AS (substr(kind, 1, max(instr(kind, '.') - 1, 0))) VIRTUAL,
    key         TEXT    NOT NULL UNIQUE,
    -- The affected user, for finding what we did to him.
    subject     TEXT,
    lane        TEXT,
    state       TEXT    NOT NULL CHECK (state IN ('waiting', 'ready', 'started', 'retry', 'unknown', 'needs_attention',
                                                  'awaiting_approval', 'succeeded', 'settled', 'failed', 'skipped',
                                                  'refused', 'cancelled')),
    in_doubt    TEXT    NOT NULL CHECK (in_doubt IN ('skip', 'resend', 'ask')),
    -- Final parameters; null until the action is prepared.
    params      TEXT,
    -- Names of the steps that end first.
    after       TEXT    NOT NULL DEFAULT '[]',
    -- How many of them have not ended.
    open_after  INTEGER NOT NULL DEFAULT 0,
    wait_until  INTEGER,
    -- Not looked at before this moment.
    due         INTEGER NOT NULL,
    attempts    INTEGER NOT NULL DEFAULT 0,
    -- When its time for retries began: when it was planned, or when a person asked for it again.
    retry_from  INTEGER NOT NULL,
    -- A word from a closed list, and a sentence.
    reason      TEXT,
    error       TEXT,
    receipt     TEXT,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    finished_at INTEGER,
    CHECK ((finished_at IS NOT NULL) = (state IN ('succeeded', 'settled', 'failed', 'skipped', 'refused', 'cancelled'))),
    CHECK (params IS NOT NULL OR state IN ('waiting', 'failed', 'skipped', 'refused', 'cancelled'))
) STRICT;

CREATE INDEX action_run ON action (run);
CREATE INDEX action_open ON action (due, id) WHERE state IN ('waiting', 'ready', 'retry', 'unknown');
CREATE INDEX action_claim ON action (service, due, id) WHERE state IN ('ready', 'retry');
CREATE INDEX action_lane ON action (lane, id)
    WHERE lane IS NOT NULL
      AND state IN ('waiting', 'ready', 'started', 'retry', 'unknown', 'needs_attention', 'awaiting_approval');
CREATE INDEX action_subject ON action (subject, kind) WHERE subject IS NOT NULL;
CREATE INDEX action_state ON action (state);

-- One request that may have left. Written before it leaves; `outcome` is null until it is known how it ended.
CREATE TABLE attempt (
    id         INTEGER PRIMARY KEY,
    action     INTEGER NOT NULL REFERENCES action (id),
    number     INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at   INTEGER,
    outcome    TEXT CHECK (outcome IN ('done', 'already_done', 'retry_after', 'transient', 'permanent', 'unknown')),
    reason     TEXT,
    detail     TEXT,
    UNIQUE (action, number),
    CHECK ((outcome IS NULL) = (ended_at IS NULL))
) STRICT;

CREATE INDEX attempt_open ON attempt (action) WHERE outcome IS NULL;

-- What people told the daemon, such as `paused`.
CREATE TABLE control (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL,
    at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
