-- Conditions may ask for the past: how often something happened to a user, or came from one actor or address. Events that
-- were stored before this are found by their user only, and tell none of these.
ALTER TABLE event ADD COLUMN actor   TEXT;
ALTER TABLE event ADD COLUMN ip      TEXT;
ALTER TABLE event ADD COLUMN country TEXT;
-- The id of a device that Okta knows.
ALTER TABLE event ADD COLUMN device  TEXT;
-- Such as SUCCESS or FAILURE.
ALTER TABLE event ADD COLUMN outcome TEXT;

CREATE INDEX event_of_subject ON event (subject, type, published) WHERE subject IS NOT NULL;
CREATE INDEX event_of_actor ON event (actor, type, published) WHERE actor IS NOT NULL;
CREATE INDEX event_of_ip ON event (ip, type, published) WHERE ip IS NOT NULL;
