"""Arrow arrays as numpy arrays and back, without copies where the layout allows it."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import compute

Column: TypeAlias = Any
"""An Arrow array; its stubs type compute functions per element type, which no column here has."""
kernels: Any = compute
"""Arrow's compute functions, whose stubs refuse columns of no declared element type."""

Bools = npt.NDArray[np.bool_]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]


def contiguous(column: Column) -> Column:
    """Answer one array for a column of any number of chunks; of one chunk, which it is, no copy."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def valid_mask(array: Column) -> Bools:
    """Tell which values are not NULL."""
    if array.null_count == 0:
        return np.ones(len(array), dtype=np.bool_)
    return np.asarray(kernels.is_valid(array).to_numpy(zero_copy_only=False), dtype=np.bool_)


def raw_numbers(array: Column) -> npt.NDArray[Any]:
    """View the values of a fixed-width array; what stands where NULL is, is arbitrary."""
    dtype = array.type.to_pandas_dtype()
    if len(array) == 0:
        return np.empty(0, dtype=dtype)
    return np.frombuffer(
        array.buffers()[1], dtype, len(array), array.offset * np.dtype(dtype).itemsize
    )


def bool_values(array: Column) -> Bools:
    """Read a boolean array, NULL as false."""
    return np.asarray(
        kernels.fill_null(array, fill_value=False).to_numpy(zero_copy_only=False), dtype=np.bool_
    )


def byte_lengths(array: Column) -> Int32s:
    """Answer the length of each text or binary value, 0 for NULL."""
    return np.asarray(
        kernels.fill_null(kernels.binary_length(array), 0).to_numpy(zero_copy_only=False)
    )


def take_or_null(array: Column, positions: npt.NDArray[Any]) -> Column:
    """Take values by position; a negative position is NULL."""
    return array.take(pa.array(positions, mask=positions < 0))


def nullable(values: npt.NDArray[Any], valid: Bools, *, dtype: pa.DataType) -> Column:
    """Make an array that is NULL where not valid."""
    return pa.array(values, dtype, mask=~valid)


def words_of(column: Column, width: int) -> tuple[Uint64s, Bools]:
    """Read `width`-byte big-endian ids as rows of 8-byte words.

    Absent ids are 0 and good; ids of another length are 0 and not good.
    """
    ids = contiguous(column)
    lengths = byte_lengths(ids)
    present = lengths == width
    good = present | (lengths == 0)
    if not good.all():
        ids = kernels.if_else(pa.array(good), ids, pa.scalar(b"", ids.type))
    words = np.zeros((len(ids), width // 8), dtype=np.uint64)
    count = int(present.sum())
    if count:
        first = int(np.frombuffer(ids.buffers()[1], np.int32)[ids.offset])
        data = np.frombuffer(ids.buffers()[2], np.uint8, count * width, first)
        words[present] = data.view(">u8").reshape(count, width // 8)
    return words, np.asarray(good, dtype=np.bool_)
