-- Buckets that a mark says have changed, and the window's ends inside a bucket. Summed first: the
-- marks are then looked up once a sum and not once a call.
SELECT * EXCLUDE (of_tenant, is_outside)
FROM (
    SELECT
        tenant AS of_tenant,
        {is_outside} AS is_outside,
        bucket, {groups}{sums}
    FROM (
        SELECT *, {bucket} AS bucket
        FROM ({booked})
        WHERE start_time >= $scan_start AND start_time < $scan_end
            AND tenant = ANY($tenants){filters}
    ) AS scanned
    GROUP BY ALL
) AS summed
WHERE is_outside
    OR EXISTS (
        FROM open_bucket
        WHERE open_bucket.tenant = summed.of_tenant AND open_bucket.bucket = summed.bucket
    )
