-- The last message of a thread in Slack is found by its lane, so that the next one can answer where it did.
CREATE INDEX action_thread ON action (lane, id)
    WHERE lane IS NOT NULL AND kind = 'slack.message.post' AND state = 'succeeded';
