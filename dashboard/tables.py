"""How columns of a table are drawn."""

import pyarrow as pa
import streamlit as st
from streamlit.elements.lib.column_types import ColumnConfig


def whole_numbers(shown: pa.Table) -> dict[str, ColumnConfig]:
    """Write integers with the reader's thousands separators."""
    return {
        field.name: st.column_config.NumberColumn(format="localized")
        for field in shown.schema
        if pa.types.is_integer(field.type)
    }
