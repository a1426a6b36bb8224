-- Minutes beside those of the reports found, which are matched with what these leave over.
CREATE OR REPLACE TEMP TABLE more AS
FROM (
    SELECT DISTINCT cell + step - 1 AS key_hash
    FROM (
        SELECT key_hash AS cell FROM new_key WHERE kind = 5
        UNION SELECT key_hash FROM cell_of_member
    )
    CROSS JOIN (SELECT unnest([0, 1, 2])::UBIGINT AS step)
)
ANTI JOIN followed USING (key_hash)
