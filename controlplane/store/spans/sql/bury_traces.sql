INSERT INTO buried_trace
SELECT DISTINCT trace_hi, trace_lo FROM subject_span
