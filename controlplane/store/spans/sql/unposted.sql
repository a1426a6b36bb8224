-- A call that was replaced before the ledger had it is posted as it was, then taken back.
SELECT {columns}
FROM (
    SELECT *, 1::TINYINT AS sign FROM call WHERE version > $posted
    UNION ALL BY NAME
    SELECT * EXCLUDE (replaced_at), 1::TINYINT AS sign
    FROM replaced_call
    WHERE version > $posted
    UNION ALL BY NAME
    SELECT * EXCLUDE (replaced_at) REPLACE (replaced_at AS version), (-1)::TINYINT AS sign
    FROM replaced_call
    WHERE replaced_at > $posted
)
ORDER BY version
