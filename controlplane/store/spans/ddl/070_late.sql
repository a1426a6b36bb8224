-- Up to which batch settlement may change calls that start before an instant. What is settled after
-- it is late for them: stored, marked, and booked as a correction.
CREATE TABLE closing (
    before TIMESTAMPTZ NOT NULL,
    zone VARCHAR NOT NULL,
    -- The last batch that was there when the periods were closed; its id finds it in a rebuilt store.
    through BIGINT NOT NULL,
    batch_id VARCHAR,
    closed_at TIMESTAMPTZ NOT NULL
);

-- Up to which batch what is late is booked: a rebuilt store has taken over the bookings.
ALTER TABLE adjustment_state ADD COLUMN late_through BIGINT DEFAULT 0;

-- Usage that a late report moves; a re-rate moves none.
ALTER TABLE adjustment ADD COLUMN reason VARCHAR DEFAULT 're-rate';
ALTER TABLE adjustment ADD COLUMN old_input_tokens BIGINT;
ALTER TABLE adjustment ADD COLUMN old_cached_input_tokens BIGINT;
ALTER TABLE adjustment ADD COLUMN old_output_tokens BIGINT;
ALTER TABLE adjustment ADD COLUMN new_input_tokens BIGINT;
ALTER TABLE adjustment ADD COLUMN new_cached_input_tokens BIGINT;
ALTER TABLE adjustment ADD COLUMN new_output_tokens BIGINT;
