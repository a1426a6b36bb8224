-- Traces of erased people: recorded text of them is not kept, whenever it comes.
CREATE TABLE buried_trace (trace_hi UBIGINT NOT NULL, trace_lo UBIGINT NOT NULL);
