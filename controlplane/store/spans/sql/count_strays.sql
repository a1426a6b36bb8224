-- Calls that the reports examined are members of, but billed by none of them.
SELECT count(*) FROM old_member ANTI JOIN old_call USING (call_id)
