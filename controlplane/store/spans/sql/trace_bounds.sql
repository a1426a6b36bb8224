SELECT min(start_time), max(start_time) + INTERVAL 1 MICROSECOND
FROM span
WHERE trace_lo = $trace_lo AND trace_hi = $trace_hi AND tenant = ANY($tenants)
