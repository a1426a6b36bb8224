-- The keys of settled members found; minutes of gateways are not followed on and on (cells).
INSERT INTO key_of_member
SELECT DISTINCT key_hash, day_of(start_time)
FROM report_key
SEMI JOIN fresh USING (trace_lo, span_id, start_time)
WHERE start_time >= $start AND start_time < $end AND kind <> 5
