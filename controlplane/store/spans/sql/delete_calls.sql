DELETE FROM grouped_call
WHERE start_time >= $start AND start_time < $end AND call_id IN (SELECT call_id FROM old_call)
