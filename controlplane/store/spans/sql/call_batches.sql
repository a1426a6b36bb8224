SELECT {columns}
FROM call
WHERE start_time >= $start AND start_time < $end
    AND tenant = ANY($tenants){filters}
ORDER BY start_time, call_id
