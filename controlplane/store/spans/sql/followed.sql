-- What to look up: keys of the new reports chosen and of traces of new spans, each on its own day and
-- those beside.
INSERT INTO followed
FROM (
    SELECT DISTINCT key_hash, day + step AS day
    FROM (
        SELECT key_hash, day_of(start_time) AS day FROM found WHERE is_new AND kind <> 5
        UNION
        SELECT key_hash, hour // 24
        FROM new_trace
        SEMI JOIN (
            SELECT key_hash FROM interesting
            UNION
            SELECT key_hash FROM found WHERE is_new
        ) AS asked USING (key_hash)
    )
    CROSS JOIN (SELECT unnest([-1, 0, 1]) AS step)
)
ANTI JOIN followed AS before USING (key_hash, day)
