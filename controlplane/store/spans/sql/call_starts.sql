-- When the call of that name starts; two columns are read whole, and nothing else.
SELECT start_time FROM grouped_call WHERE call_id = $call_id
UNION
SELECT start_time FROM span_fact WHERE call_hi = $call_hi AND call_lo = $call_lo
