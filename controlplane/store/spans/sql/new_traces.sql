-- Traces that new spans which are no reports belong to: a span between two reports makes one the
-- other's ancestor.
CREATE OR REPLACE TEMP TABLE new_trace AS
SELECT DISTINCT hash(domain, trace_hi, trace_lo) AS key_hash, hour_of(start_time) AS hour
FROM span
WHERE batch_seq > $after AND batch_seq <= $through AND report_kind <> 'call'
