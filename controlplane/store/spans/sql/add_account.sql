-- What was neither stored nor rejected was there already.
INSERT INTO emitter_hour
SELECT
    account.tenant, account.key_id, account.service_name, account.signal, account.hour,
    account.received,
    coalesce(done.stored, 0),
    account.received - coalesce(refused.rejected, 0) - coalesce(done.stored, 0),
    account.late, account.ahead, account.last_received
FROM batch_account AS account
LEFT JOIN stored_of_batch AS done
    ON done.key_id = account.key_id AND done.service_name = account.service_name
    AND done.signal = account.signal AND done.tenant = account.tenant
LEFT JOIN (
    SELECT tenant, key_id, service_name, signal, sum(rejected)::BIGINT AS rejected
    FROM batch_rejection
    GROUP BY ALL
) AS refused
    ON refused.tenant = account.tenant AND refused.key_id = account.key_id
    AND refused.service_name = account.service_name AND refused.signal = account.signal
ON CONFLICT DO UPDATE SET
    received = received + excluded.received,
    stored = stored + excluded.stored,
    duplicates = duplicates + excluded.duplicates,
    late = late + excluded.late,
    ahead = ahead + excluded.ahead,
    last_received = greatest(last_received, excluded.last_received)
