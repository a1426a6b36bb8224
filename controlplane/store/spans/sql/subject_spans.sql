-- Every span that names the subject.
CREATE OR REPLACE TEMP TABLE subject_span AS
SELECT trace_hi, trace_lo, span_id, start_time, tenant, domain
FROM span
WHERE user_id = $user_id AND tenant = $tenant
