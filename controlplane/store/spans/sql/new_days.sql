SELECT DISTINCT day_of(start_time)
FROM span
WHERE batch_seq > $after AND batch_seq <= $through
ORDER BY 1
