-- Every key row that the closure has seen; `is_new` rows are not settled yet.
CREATE OR REPLACE TEMP TABLE found AS SELECT *, true AS is_new FROM report_key LIMIT 0
