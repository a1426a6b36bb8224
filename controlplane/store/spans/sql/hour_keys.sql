SELECT key_hash, hour_of(start_time) AS hour
FROM report_key
WHERE start_time >= $start AND start_time < $end
UNION ALL
SELECT hash(domain, trace_hi, trace_lo), hour_of(start_time)
FROM span
WHERE start_time >= $start AND start_time < $end AND report_kind <> 'call'
