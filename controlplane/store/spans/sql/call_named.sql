SELECT {columns}
FROM call
WHERE start_time = $start AND call_id = $call_id AND tenant = ANY($tenants)
