DELETE FROM dirty
USING due
WHERE dirty.tenant = due.tenant AND dirty.bucket = due.bucket AND dirty.seq <= due.through_seq
    AND due.bucket >= $start AND due.bucket < $end
