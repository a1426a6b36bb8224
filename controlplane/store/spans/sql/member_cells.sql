-- The minutes of gateways (kind 5) that settled members found are matched in.
INSERT INTO cell_of_member
SELECT DISTINCT report_key.key_hash, day_of(report_key.start_time)
FROM report_key
SEMI JOIN member
    ON report_key.trace_lo = member.trace_lo
    AND report_key.span_id = member.span_id
    AND report_key.start_time = member.start_time
    AND NOT member.is_new
WHERE report_key.start_time >= $start AND report_key.start_time < $end
    AND report_key.kind = 5
