-- Of the calls settled those that need no copy: one report, said once, that was a call by itself
-- before with the same content, or is new.
CREATE OR REPLACE TEMP TABLE lone_still AS
WITH said_once AS (
    SELECT domain, trace_hi, trace_lo, span_id, start_time
    FROM examined
    GROUP BY ALL
    HAVING count(*) = 1
)
SELECT domain, trace_hi, trace_lo, span_id, start_time, call_id
FROM regrouped
SEMI JOIN said_once USING (domain, trace_hi, trace_lo, span_id, start_time)
WHERE reports = 1 AND (
    call_id IN (SELECT call_id FROM old_call WHERE is_lone AND call_id IN (FROM unchanged))
    OR NOT EXISTS (
        FROM old_call
        WHERE old_call.call_id = regrouped.call_id
            OR (old_call.domain, old_call.trace_hi, old_call.trace_lo, old_call.span_id,
                old_call.start_time)
            = (regrouped.domain, regrouped.trace_hi, regrouped.trace_lo, regrouped.span_id,
                regrouped.start_time)
    )
    AND NOT EXISTS (
        FROM old_member
        WHERE (old_member.domain, old_member.trace_hi, old_member.trace_lo, old_member.span_id,
                old_member.start_time)
            = (regrouped.domain, regrouped.trace_hi, regrouped.trace_lo, regrouped.span_id,
                regrouped.start_time)
    )
)
