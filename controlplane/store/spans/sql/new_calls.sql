CREATE OR REPLACE TEMP TABLE new_call AS
SELECT * FROM regrouped ANTI JOIN kept_call USING (call_id)
