INSERT INTO adjustment_left_out
SELECT posting, call_id
FROM adjustment
WHERE NOT is_correction
    AND call_id IN (SELECT call_id FROM call WHERE version > $after)
    AND call_id NOT IN (SELECT call_id FROM replaced_call WHERE version <= $after)
