SELECT {columns}
FROM span_fact
JOIN span_context USING (context_id)
WHERE batch_seq = $batch_seq
ORDER BY span_fact.rowid
