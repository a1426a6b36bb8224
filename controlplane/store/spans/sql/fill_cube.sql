INSERT INTO cube_15m BY NAME
SELECT
    make_timestamptz(epoch_us(start_time) // 900000000 * 900000000) AS bucket,
    {dimensions},
    {measures}
FROM call
WHERE start_time >= $start AND start_time < $end
    AND (tenant, make_timestamptz(epoch_us(start_time) // 900000000 * 900000000)) IN (
        SELECT (tenant, bucket) FROM due
    )
GROUP BY ALL
