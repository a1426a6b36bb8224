SELECT count(*)
FROM span
ANTI JOIN member USING (trace_lo, span_id, start_time)
WHERE batch_seq > $after AND batch_seq <= $through AND report_kind = 'call'
