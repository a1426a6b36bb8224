-- How far emitters' clocks were seen to be ahead (ingest.clock_skew), as it was learned.
CREATE TABLE clock_skew (
    domain VARCHAR NOT NULL,
    key_id VARCHAR NOT NULL,
    service_name VARCHAR NOT NULL,
    ahead_us BIGINT NOT NULL,
    since TIMESTAMPTZ NOT NULL
);

-- How far a span's start was moved back: it said start_time + clock_ahead_us. NULL: not at all.
ALTER TABLE span_fact ADD COLUMN clock_ahead_us BIGINT;

DROP VIEW span;

CREATE VIEW span AS
SELECT
    span_fact.* EXCLUDE (context_id),
    span_context.* EXCLUDE (context_id, digest_hi, digest_lo)
FROM span_fact
JOIN span_context USING (context_id);
