-- What happened, in order, each record sealed with the one before it. Records are only ever added at the end, and only
-- pruning takes some away, from the beginning.
CREATE TABLE journal (
    seq    INTEGER PRIMARY KEY,
    at     INTEGER NOT NULL,
    -- A JSON object on one line; it names its own number and moment, so that the hash covers both.
    record TEXT    NOT NULL,
    -- SHA-256 over the previous hash in hexadecimal and the record.
    hash   BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;

CREATE TRIGGER journal_is_written_once BEFORE UPDATE ON journal
BEGIN
    SELECT raise(ABORT, 'a record of the journal is never changed');
END;

-- One row: where the journal begins, and when old rows were last looked for.
CREATE TABLE retention (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    -- The last record that was pruned; zero before the first one.
    anchor_seq  INTEGER NOT NULL,
    anchor_hash BLOB    NOT NULL CHECK (length(anchor_hash) = 32),
    pruned_at   INTEGER
) STRICT;

INSERT INTO retention (id, anchor_seq, anchor_hash) VALUES (1, 0, zeroblob(32));

-- Keys of actions that were sent and whose rows are pruned. What has its key here is never planned again.
CREATE TABLE spent_key (
    key TEXT    PRIMARY KEY,
    at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
