-- Room for those that took the place of others.
DELETE FROM emitter_instance
WHERE last_received < (SELECT max(last_received) FROM batch_instance) - INTERVAL 7 DAY
