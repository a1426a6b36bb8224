INSERT INTO cube_15m BY NAME
SELECT
    bucket_of(start_time) AS bucket,
    {dimensions},
    {measures}
FROM ({booked})
WHERE start_time >= $start AND start_time < $end
    AND (tenant, bucket_of(start_time)) IN (SELECT (tenant, bucket) FROM due)
GROUP BY ALL
