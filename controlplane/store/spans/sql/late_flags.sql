-- No call by itself: the periods that have it are closed.
UPDATE span_fact SET is_grouped = true
WHERE batch_seq > $after AND batch_seq <= $through AND start_time < $closed
    AND context_id IN (SELECT context_id FROM span_context WHERE report_kind = 'call')
