-- Buckets that are over and have come to rest, or have waited long enough.
CREATE OR REPLACE TEMP TABLE due AS
SELECT tenant, bucket, max(seq) AS through_seq
FROM dirty
WHERE bucket < make_timestamptz($open_us)
GROUP BY tenant, bucket
HAVING max(marked_at) <= make_timestamptz($rested_us)
    OR min(marked_at) <= make_timestamptz($waited_us)
ORDER BY bucket
LIMIT $max_buckets
