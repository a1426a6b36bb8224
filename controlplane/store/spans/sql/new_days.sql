SELECT DISTINCT epoch_us(start_time) // 86400000000
FROM span
WHERE batch_seq > $after AND batch_seq <= $through
ORDER BY 1
