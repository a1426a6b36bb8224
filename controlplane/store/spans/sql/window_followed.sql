-- Keys of the grouped reports of a window: where settling them again starts from.
CREATE OR REPLACE TEMP TABLE new_key AS FROM report_key LIMIT 0;
CREATE OR REPLACE TEMP TABLE window_report AS
SELECT trace_lo, span_id, start_time
FROM span_fact
WHERE start_time >= $start AND start_time < $end AND is_grouped;
CREATE OR REPLACE TEMP TABLE followed AS
SELECT DISTINCT key_hash, day_of(start_time) + step AS day
FROM report_key
SEMI JOIN window_report USING (trace_lo, span_id, start_time)
CROSS JOIN (SELECT unnest([-1, 0, 1]) AS step)
WHERE start_time >= $start AND start_time < $end AND kind <> 5;
