-- A person has what a run did undone: by a run of its own, whose actions name those that they undo. No references: what was
-- undone may be pruned before.
ALTER TABLE run    ADD COLUMN reverts INTEGER;
ALTER TABLE action ADD COLUMN reverts INTEGER;

CREATE INDEX run_reverts ON run (reverts) WHERE reverts IS NOT NULL;
CREATE INDEX action_reverts ON action (reverts) WHERE reverts IS NOT NULL;
