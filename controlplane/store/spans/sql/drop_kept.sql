DELETE FROM old_call WHERE call_id IN (FROM kept_call)
