-- Which registered gateway a client called, or made the span (ingest.gateways); NULL: none.
ALTER TABLE span_context ADD COLUMN gateway VARCHAR;

DROP VIEW span;

CREATE VIEW span AS
SELECT
    span_fact.* EXCLUDE (context_id),
    span_context.* EXCLUDE (context_id, digest_hi, digest_lo)
FROM span_fact
JOIN span_context USING (context_id);
