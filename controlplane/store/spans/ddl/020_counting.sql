-- An engine appends the number of a prompt to the id that the response has (ingest.report.join_id).
CREATE MACRO join_id(id, layer) AS CASE
    WHEN layer = 'engine' AND starts_with(id, 'cmpl-')
    THEN regexp_replace(id, '^(cmpl-.+)-[0-9]{1,4}$', '\1')
    ELSE id
END;

-- Emitters that were seen to give different calls the same id, and from when on theirs are no keys.
-- What was learned is an input of settlement: a rebuild takes it over.
CREATE TABLE weak_emitter (
    domain VARCHAR NOT NULL,
    service_name VARCHAR NOT NULL,
    scope_name VARCHAR NOT NULL,
    since TIMESTAMPTZ NOT NULL
);

-- How many may share a key within an hour of their start, a trace at all (ingest.join_keys):
-- sides of an id, reports of a trace or a minute, spans of an engine's request.
CREATE MACRO most_sharers(kind) AS CASE kind
    WHEN 1 THEN 16
    WHEN 2 THEN 16
    WHEN 3 THEN 1024
    ELSE 2000
END;
