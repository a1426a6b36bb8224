-- What re-rates did to calls: appended to, never changed. A report carries its newest price; this is
-- what it was before, and why. `posting` numbers a transaction's rows for the ledger.
CREATE SEQUENCE adjustment_posting;

CREATE TABLE adjustment (
    run_id VARCHAR NOT NULL,
    price_version VARCHAR NOT NULL,
    applied_at TIMESTAMPTZ NOT NULL,
    posting BIGINT NOT NULL,
    is_correction BOOLEAN NOT NULL,
    call_id VARCHAR NOT NULL,
    start_time TIMESTAMPTZ NOT NULL,
    enforced BOOLEAN NOT NULL,
    tenant VARCHAR NOT NULL,
    team VARCHAR,
    project VARCHAR,
    feature VARCHAR,
    customer VARCHAR,
    user_id VARCHAR,
    api_key VARCHAR,
    environment VARCHAR,
    region VARCHAR,
    provider VARCHAR,
    operation VARCHAR,
    request_model VARCHAR,
    response_model VARCHAR,
    billing_model VARCHAR,
    old_cost_nusd BIGINT,
    old_cost_state VARCHAR,
    old_cost_reason VARCHAR,
    old_price_id VARCHAR,
    new_cost_nusd BIGINT,
    new_cost_state VARCHAR,
    new_cost_reason VARCHAR,
    new_price_id VARCHAR
);

-- One row: the last posting that the ledger has.
CREATE TABLE adjustment_state (posted BIGINT NOT NULL);
INSERT INTO adjustment_state VALUES (0);
