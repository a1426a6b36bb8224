INSERT INTO old_call BY NAME
SELECT *, false AS is_lone
FROM grouped_call
WHERE
    start_time >= $start AND start_time < $end
    AND call_id IN (SELECT call_id FROM old_member ANTI JOIN old_call USING (call_id))
