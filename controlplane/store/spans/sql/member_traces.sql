-- Where spans of the members' traces may be: days on which those traces were looked for.
SELECT DISTINCT key_hash, day
FROM followed
SEMI JOIN (
    SELECT key_hash
    FROM found
    SEMI JOIN member USING (trace_lo, span_id, start_time)
    WHERE kind = 0
) AS traced USING (key_hash)
