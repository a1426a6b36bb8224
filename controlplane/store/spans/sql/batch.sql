SELECT {columns}
FROM span
WHERE batch_seq = $batch_seq
ORDER BY rowid
