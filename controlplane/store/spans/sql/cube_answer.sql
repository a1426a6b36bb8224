-- Whole buckets that no mark says have changed since they were summed.
SELECT bucket, {groups}{sums}
FROM cube_15m
WHERE bucket >= $cube_start AND bucket < $cube_end
    AND tenant = ANY($tenants){filters}
    AND NOT EXISTS (
        FROM open_bucket
        WHERE open_bucket.tenant = cube_15m.tenant AND open_bucket.bucket = cube_15m.bucket
    )
GROUP BY ALL
