-- A call that was replaced before the ledger had it is posted as it was, then taken back.
SELECT *, 1::TINYINT AS sign FROM call WHERE version > $posted
UNION ALL
SELECT * EXCLUDE (replaced_at), 1::TINYINT FROM replaced_call WHERE version > $posted
UNION ALL
SELECT * EXCLUDE (replaced_at) REPLACE (replaced_at AS version), (-1)::TINYINT
FROM replaced_call
WHERE replaced_at > $posted
ORDER BY version, call_id, sign
