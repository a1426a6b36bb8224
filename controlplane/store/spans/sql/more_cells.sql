-- Minutes beside those of the reports found, which are matched with what these leave over.
CREATE OR REPLACE TEMP TABLE more AS
FROM (
    SELECT DISTINCT cell + beside - 1 AS key_hash, day + step AS day
    FROM (
        SELECT key_hash AS cell, day_of(start_time) AS day FROM new_key WHERE kind = 5
        UNION SELECT key_hash, day FROM cell_of_member
    )
    CROSS JOIN (SELECT unnest([0, 1, 2])::UBIGINT AS beside)
    CROSS JOIN (SELECT unnest([-1, 0, 1]) AS step)
)
ANTI JOIN followed USING (key_hash, day)
