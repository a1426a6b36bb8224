-- The money cube. Its unit of recomputation is the (tenant, bucket), never a delta added.
CREATE TABLE cube_15m (
    bucket TIMESTAMPTZ NOT NULL,
    tenant VARCHAR,
    team VARCHAR,
    project VARCHAR,
    feature VARCHAR,
    customer VARCHAR,
    api_key VARCHAR,
    environment VARCHAR,
    region VARCHAR,
    provider VARCHAR,
    model VARCHAR,
    operation VARCHAR,
    status VARCHAR,
    cost_state VARCHAR,
    price_id VARCHAR,
    calls BIGINT NOT NULL,
    errors BIGINT NOT NULL,
    unpriced_calls BIGINT NOT NULL,
    unpriced_tokens BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    cached_input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    cost_nusd BIGINT NOT NULL,
    input_uncached BIGINT NOT NULL,
    cache_read BIGINT NOT NULL,
    cache_write_5m BIGINT NOT NULL,
    cache_write_1h BIGINT NOT NULL,
    input_audio BIGINT NOT NULL,
    input_image BIGINT NOT NULL,
    input_video BIGINT NOT NULL,
    cache_read_audio BIGINT NOT NULL,
    output_text BIGINT NOT NULL,
    output_reasoning BIGINT NOT NULL,
    output_audio BIGINT NOT NULL,
    output_image BIGINT NOT NULL,
    web_searches BIGINT NOT NULL,
    requests BIGINT NOT NULL,
    pages BIGINT NOT NULL,
    audio_seconds BIGINT NOT NULL,
    gpu_seconds BIGINT NOT NULL
);

CREATE SEQUENCE dirty_seq;

-- Append-only: a recomputation deletes the marks it read, not those made meanwhile (I1).
CREATE TABLE dirty (
    tenant VARCHAR,
    bucket TIMESTAMPTZ,
    seq BIGINT DEFAULT nextval('dirty_seq'),
    marked_at TIMESTAMPTZ
);
