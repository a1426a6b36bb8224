-- What is not a span: measurements, events about calls, and what each emitter sent.
CREATE TABLE signal_batch (
    batch_id VARCHAR PRIMARY KEY,
    samples BIGINT NOT NULL,
    duplicate_samples BIGINT NOT NULL,
    events BIGINT NOT NULL,
    duplicate_events BIGINT NOT NULL
);

CREATE TABLE sample (
    domain VARCHAR,
    tenant VARCHAR,
    key_id VARCHAR,
    emitter VARCHAR,
    instance VARCHAR,
    metric VARCHAR,
    meaning VARCHAR,
    kind VARCHAR,
    temporality VARCHAR,
    series_hash UBIGINT,
    model VARCHAR,
    provider VARCHAR,
    operation VARCHAR,
    host VARCHAR,
    gpu VARCHAR,
    pool VARCHAR,
    labels VARCHAR,
    start_time TIMESTAMPTZ,
    time TIMESTAMPTZ,
    value DOUBLE,
    count BIGINT,
    received_at TIMESTAMPTZ
);

CREATE TABLE call_event (
    domain VARCHAR,
    tenant VARCHAR,
    key_id VARCHAR,
    kind VARCHAR,
    name VARCHAR,
    source VARCHAR,
    trace_hi UBIGINT,
    trace_lo UBIGINT,
    span_id UBIGINT,
    parent_span_id UBIGINT,
    response_id VARCHAR,
    time TIMESTAMPTZ,
    score DOUBLE,
    label VARCHAR,
    action VARCHAR,
    author VARCHAR,
    service_name VARCHAR,
    event_hash UBIGINT
);

-- One row per emitter, signal and hour of arrival.
CREATE TABLE emitter_hour (
    tenant VARCHAR,
    key_id VARCHAR,
    service_name VARCHAR,
    signal VARCHAR,
    hour TIMESTAMPTZ,
    received BIGINT NOT NULL,
    stored BIGINT NOT NULL,
    duplicates BIGINT NOT NULL,
    late BIGINT NOT NULL,
    ahead BIGINT NOT NULL,
    last_received TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (tenant, key_id, service_name, signal, hour)
);

CREATE TABLE emitter_rejection (
    tenant VARCHAR,
    key_id VARCHAR,
    service_name VARCHAR,
    signal VARCHAR,
    hour TIMESTAMPTZ,
    reason VARCHAR,
    rejected BIGINT NOT NULL,
    PRIMARY KEY (tenant, key_id, service_name, signal, hour, reason)
);
