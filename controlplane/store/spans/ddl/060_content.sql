-- What people wrote and models answered, where an installation records it: no money, no rollup and
-- no settlement reads it, and it goes when its own retention ends.
CREATE TABLE span_content (
    domain VARCHAR NOT NULL,
    tenant VARCHAR NOT NULL,
    trace_hi UBIGINT NOT NULL,
    trace_lo UBIGINT NOT NULL,
    span_id UBIGINT NOT NULL,
    start_time TIMESTAMPTZ NOT NULL,
    side VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    text VARCHAR,
    is_cut BOOLEAN NOT NULL
);
