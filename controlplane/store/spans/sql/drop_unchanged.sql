DELETE FROM old_call
WHERE call_id IN (SELECT call_id FROM regrouped) AND call_id NOT IN (SELECT call_id FROM new_call)
