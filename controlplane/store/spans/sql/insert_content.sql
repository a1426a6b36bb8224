-- The same text of the same attribute of the same span is there once, whoever sends it again.
INSERT INTO span_content BY NAME
FROM (SELECT DISTINCT * FROM new_content)
ANTI JOIN (
    SELECT domain, trace_hi, trace_lo, span_id, start_time, name, text
    FROM span_content
    WHERE start_time >= $start AND start_time <= $end
) USING (domain, trace_hi, trace_lo, span_id, start_time, name, text)
