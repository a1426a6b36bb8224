DELETE FROM cube_15m
WHERE bucket >= $start AND bucket < $end
    AND (tenant, bucket) IN (SELECT (tenant, bucket) FROM due)
