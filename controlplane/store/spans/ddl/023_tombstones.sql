-- People who were erased, as keyed hashes (ingest.subjects): what comes later of before then is
-- stored without them.
CREATE TABLE tombstone (
    subject_hash VARCHAR PRIMARY KEY,
    erased_at TIMESTAMPTZ NOT NULL
);
