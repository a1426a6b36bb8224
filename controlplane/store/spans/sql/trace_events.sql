SELECT call_event.*
FROM call_event
WHERE tenant = ANY($tenants)
    AND (
        (trace_hi, trace_lo) IN (SELECT (trace_hi, trace_lo) FROM asked_trace)
        OR response_id = ANY($response_ids)
    )
ORDER BY time, event_hash
