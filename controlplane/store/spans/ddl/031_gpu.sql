-- What GPU pools cost: one row a bucket and pool, its lines by who used it, and each call's part.
CREATE TABLE gpu_bucket (
    pool VARCHAR,
    bucket TIMESTAMPTZ,
    bill_nusd BIGINT NOT NULL,
    busy_ratio DOUBLE NOT NULL,
    confidence VARCHAR NOT NULL,
    -- Of everything the bucket was worked out from: equal means that nothing needs doing.
    fingerprint UBIGINT NOT NULL,
    computed_at TIMESTAMPTZ NOT NULL
);

CREATE TABLE gpu_share (
    pool VARCHAR,
    bucket TIMESTAMPTZ,
    slice VARCHAR,
    tenant VARCHAR,
    team VARCHAR,
    model VARCHAR,
    is_idle BOOLEAN,
    calls BIGINT,
    cost_nusd BIGINT
);

CREATE TABLE gpu_call (
    pool VARCHAR,
    bucket TIMESTAMPTZ,
    call_id VARCHAR,
    tenant VARCHAR,
    cost_nusd BIGINT,
    idle_nusd BIGINT
);
