CREATE OR REPLACE TEMP TABLE edge (
    domain VARCHAR, trace_hi UBIGINT, trace_lo UBIGINT, span_id UBIGINT, parent_span_id UBIGINT
)
