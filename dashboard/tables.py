"""How columns of a table are drawn."""

import re
from typing import Any, Final

import pyarrow as pa
import streamlit as st
from streamlit.elements.lib.column_types import ColumnConfig

from dashboard import spoken

_FIGURE: Final = re.compile(r"(?:[≥<] )?[-+]?\$?\d[\d,.]*(?: ?(?:%|ms|s|min|h|d))?")


def figures(shown: pa.Table) -> dict[str, ColumnConfig]:
    """Write integers with the reader's separators, and set written figures to the right, too."""
    config = {
        field.name: st.column_config.NumberColumn(format="localized")
        for field in shown.schema
        if pa.types.is_integer(field.type)
    }
    for name in shown.column_names:
        if _is_figures(shown.column(name)):
            config[name] = st.column_config.TextColumn(alignment="right")
    return config


def _is_figures(column: "pa.ChunkedArray[Any]") -> bool:
    if not pa.types.is_string(column.type):
        return False
    written = {text for text in column.to_pylist() if text not in {"", None, spoken.UNKNOWN}}
    return bool(written) and all(_FIGURE.fullmatch(text) for text in written)
