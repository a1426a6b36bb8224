CREATE OR REPLACE TEMP TABLE more AS
FROM (
    SELECT DISTINCT key_hash, day + step AS day
    FROM key_of_member
    CROSS JOIN (SELECT unnest([-1, 0, 1]) AS step)
)
ANTI JOIN followed USING (key_hash, day)
