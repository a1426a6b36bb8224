-- New reports of closed periods, each with the call it would be home of.
CREATE OR REPLACE TEMP TABLE late_report AS
SELECT
    concat('call_', printf('%016x%016x', call_hi, call_lo)) AS call_id,
    layer = 'agent' AND key_role = 'agent' AS enforced,
    *
FROM span
WHERE batch_seq > $after AND batch_seq <= $through AND start_time < $closed
    AND report_kind = 'call'
