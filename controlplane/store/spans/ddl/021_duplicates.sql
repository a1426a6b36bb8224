-- What each suppressed report would have added to the bill, and who bills instead.
ALTER TABLE call_member ADD COLUMN input_tokens BIGINT;
ALTER TABLE call_member ADD COLUMN output_tokens BIGINT;
ALTER TABLE call_member ADD COLUMN cost_nusd BIGINT;
ALTER TABLE call_member ADD COLUMN billing_tenant VARCHAR DEFAULT '';
ALTER TABLE call_member ADD COLUMN billing_service VARCHAR DEFAULT '';
ALTER TABLE call_member ADD COLUMN billing_dialect VARCHAR DEFAULT '';
