-- The start time of a page's last row: found without reading the wide rows.
SELECT min(start_time)
FROM (
    SELECT start_time
    FROM call
    WHERE start_time >= $start AND start_time < $end
        AND tenant = ANY($tenants){filters}{before}
    ORDER BY start_time DESC
    LIMIT $limit
)
