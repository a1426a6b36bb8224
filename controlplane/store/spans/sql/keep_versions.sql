UPDATE new_call SET version = old_call.version
FROM old_call
WHERE new_call.call_id = old_call.call_id
