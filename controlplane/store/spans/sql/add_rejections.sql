INSERT INTO emitter_rejection
SELECT * FROM batch_rejection
ON CONFLICT DO UPDATE SET rejected = rejected + excluded.rejected
