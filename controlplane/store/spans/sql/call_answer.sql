-- Buckets that a mark says have changed, and the window's ends inside a bucket.
SELECT bucket, {groups}{sums}
FROM (
    SELECT *, bucket_of(start_time) AS bucket
    FROM call
    WHERE start_time >= $scan_start AND start_time < $scan_end
        AND tenant = ANY($tenants){filters}
) AS scanned
WHERE start_time < $cube_start OR start_time >= $cube_end
    OR EXISTS (
        FROM open_bucket
        WHERE open_bucket.tenant = scanned.tenant AND open_bucket.bucket = scanned.bucket
    )
GROUP BY ALL
