-- The guard is asked when an action is claimed: what a person allowed, what counts against a limit, who was stopped.

-- Who allowed an action that awaited approval, and when.
ALTER TABLE action ADD COLUMN approved_at INTEGER;
ALTER TABLE action ADD COLUMN approved_by TEXT;

-- How long what awaits approval has done so: since its last change of state.
CREATE INDEX action_held ON action (updated_at) WHERE state = 'awaiting_approval';

-- Whether the attempt counts against the limits: it was one to change access, and no person had allowed it.
ALTER TABLE attempt ADD COLUMN counted INTEGER NOT NULL DEFAULT 0 CHECK (counted IN (0, 1));
UPDATE attempt SET counted = 1 WHERE action IN (SELECT id FROM action WHERE service = 'okta');
CREATE INDEX attempt_counted ON attempt (started_at) WHERE counted = 1;

-- A playbook whose changes await approval, because it went over a limit or because a person said so. It stays on record
-- after a person has let it go on; what it changed before that does not count against the limits any more.
CREATE TABLE trip (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    playbook   TEXT    NOT NULL,
    cause      TEXT    NOT NULL CHECK (cause IN ('limit', 'person')),
    -- A sentence.
    why        TEXT    NOT NULL,
    -- The action that went over the limit. No reference: the trip may outlive it.
    action     INTEGER,
    began_at   INTEGER NOT NULL,
    ended_at   INTEGER,
    -- Who let it go on.
    ended_by   TEXT
) STRICT;

CREATE UNIQUE INDEX trip_in_force ON trip (playbook) WHERE ended_at IS NULL;
CREATE INDEX trip_playbook ON trip (playbook, ended_at);
