-- One row per replica of an emitter of spans; what was silent for a week is forgotten.
CREATE TABLE emitter_instance (
    tenant VARCHAR,
    key_id VARCHAR,
    service_name VARCHAR,
    instance VARCHAR,
    received BIGINT NOT NULL,
    first_received TIMESTAMPTZ NOT NULL,
    last_received TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (tenant, key_id, service_name, instance)
);
