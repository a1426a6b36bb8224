INSERT INTO dirty (tenant, bucket, marked_at)
SELECT DISTINCT
    tenant,
    make_timestamptz(epoch_us(start_time) // 900000000 * 900000000),
    make_timestamptz($now_us)
FROM (
    SELECT tenant, start_time FROM fresh
    UNION ALL SELECT tenant, start_time FROM old_call
    UNION ALL SELECT tenant, start_time FROM new_call
)
