-- What the daemon last knew of Okta's rate limits; each time it tells, it replaces all of it.
CREATE TABLE rate (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    at      INTEGER NOT NULL,
    -- Requests that may be under way at once.
    at_once INTEGER NOT NULL
) STRICT;

CREATE TABLE rate_bucket (
    bucket     TEXT    PRIMARY KEY,
    -- Requests per minute that Okta grants to everybody, and those that are ours; null before they were heard.
    granted    INTEGER,
    share      INTEGER,
    used       INTEGER NOT NULL,
    remaining  INTEGER,
    resets_at  INTEGER,
    waiting    INTEGER NOT NULL,
    requests   INTEGER NOT NULL,
    refused    INTEGER NOT NULL,
    refused_at INTEGER,
    crowded    INTEGER NOT NULL,
    crowded_at INTEGER
) STRICT, WITHOUT ROWID;
