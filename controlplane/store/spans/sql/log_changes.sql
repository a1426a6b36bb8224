INSERT INTO call_change
SELECT * REPLACE ($through AS version), -1 FROM old_call
UNION ALL SELECT *, 1 FROM fresh
UNION ALL SELECT *, 1 FROM new_call
