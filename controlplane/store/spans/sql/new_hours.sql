SELECT key_hash, hour_of(start_time) AS hour FROM new_key
UNION ALL
SELECT key_hash, hour FROM new_trace
