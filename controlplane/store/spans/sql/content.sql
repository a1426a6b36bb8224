SELECT *
FROM span_content
WHERE trace_hi = $trace_hi AND trace_lo = $trace_lo AND list_contains($tenants, tenant)
ORDER BY start_time, span_id, side, name
