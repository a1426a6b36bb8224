INSERT INTO dirty (tenant, bucket, marked_at)
SELECT tenant, bucket, $now
FROM (
    SELECT tenant, bucket FROM new_lone
    UNION SELECT tenant, bucket_of(start_time) FROM old_call
    UNION SELECT tenant, bucket_of(start_time) FROM new_call
)
