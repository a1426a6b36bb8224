SELECT {columns}
FROM call
WHERE start_time >= $start AND start_time < $end
    AND tenant = ANY($tenants){filters}{before}
ORDER BY start_time DESC, call_id DESC
LIMIT $limit
