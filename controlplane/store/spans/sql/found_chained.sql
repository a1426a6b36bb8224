-- New reports that nothing near them can join, and that a chain of settled ones leads to.
INSERT INTO found
SELECT *, true
FROM new_key
SEMI JOIN (
    SELECT trace_lo, span_id, start_time
    FROM new_key
    SEMI JOIN more USING (key_hash)
) AS reached USING (trace_lo, span_id, start_time)
ANTI JOIN (
    SELECT trace_lo, span_id, start_time FROM found WHERE is_new
) AS known USING (trace_lo, span_id, start_time)
