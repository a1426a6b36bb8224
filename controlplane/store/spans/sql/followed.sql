-- Keys to look up: those of new reports, and the traces that any new span belongs to, because a
-- span between two reports makes one the other's ancestor.
CREATE OR REPLACE TEMP TABLE followed AS
SELECT DISTINCT key_hash FROM new_key WHERE kind <> 5
UNION
SELECT DISTINCT hash(domain, trace_hi, trace_lo)
FROM span
WHERE batch_seq > $after AND batch_seq <= $through AND report_kind <> 'call'
