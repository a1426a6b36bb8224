UPDATE span_fact
SET cost_nusd = repriced.cost_nusd, context_id = repriced.context_id
FROM repriced
WHERE span_fact.rowid = repriced.row_number
    AND span_fact.start_time >= $start AND span_fact.start_time < $end
