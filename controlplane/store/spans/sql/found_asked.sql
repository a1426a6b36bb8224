INSERT INTO found
SELECT report_key.*, false
FROM report_key
SEMI JOIN asked USING (key_hash)
WHERE start_time >= $start AND start_time < $end
