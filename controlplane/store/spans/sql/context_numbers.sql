-- Which of the wanted contexts are stored, and under which number.
SELECT digest_hi, digest_lo, min(context_id)
FROM span_context
SEMI JOIN wanted USING (digest_hi, digest_lo)
GROUP BY ALL
