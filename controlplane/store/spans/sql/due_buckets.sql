-- Buckets that are over and have come to rest, or have waited long enough.
CREATE OR REPLACE TEMP TABLE due AS
SELECT tenant, bucket, max(seq) AS through_seq
FROM dirty
WHERE bucket < $open
GROUP BY tenant, bucket
HAVING max(marked_at) <= $rested OR min(marked_at) <= $waited
ORDER BY bucket
LIMIT $max_buckets
