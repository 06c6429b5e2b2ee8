-- A step may be done later than the rest of its run, unless something holds by then. Null where a step has no delay.

-- How much later, and the moment before which nothing is done for it.
ALTER TABLE action ADD COLUMN delay        INTEGER;
ALTER TABLE action ADD COLUMN not_before   INTEGER;
-- What is asked when it is due, as JSON: the step's `cancel_if`, `needs` and `approval` as they were when it was planned.
ALTER TABLE action ADD COLUMN delayed_plan TEXT;
-- When that was last answered; an old answer is not acted on.
ALTER TABLE action ADD COLUMN answered_at  INTEGER;

CREATE INDEX action_delayed ON action (not_before) WHERE state = 'waiting' AND not_before IS NOT NULL;

-- What was done in a lane: a later run that came to the same makes an earlier, delayed action needless.
CREATE INDEX action_lane_done ON action (lane, id) WHERE lane IS NOT NULL AND state IN ('succeeded', 'settled');
