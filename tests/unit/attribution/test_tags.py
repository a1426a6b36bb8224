"""Dimensions that are written as tags."""

import pyarrow as pa
import pytest

from controlplane.attribution.tags import tag_value, tag_values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('["team:search", "feature:summarise"]', "search"),  # Langfuse
        ("team:search, feature:summarise", "search"),  # LangSmith
        ("feature:summarise, seq:step:1, team:search", "search"),
        ("seq:1,team: search ", "search"),
        ("team:a:b", "a:b"),
        ('["team:caf\\u00e9, bar"]', "café, bar"),  # a comma inside a JSON text is no border
        ("team:first,team:second", "first"),
        ("team:,team:second", "second"),
        ("myteam:x", None),
        ("team", None),
        ("Team:x", None),
        ("", None),
        ('["team:search', None),  # cut short
        ("[1, 2]", None),
        ("[]", None),
    ],
)
def test_the_first_tag_of_the_name_counts(text: str, expected: str | None) -> None:
    """In both spellings that producers have, and never half of a value."""
    assert expected == tag_value(text, "team")


def test_columns_are_read_once_a_distinct_text() -> None:
    """NULL stays NULL; every row gets its own text's value."""
    texts = pa.array(["team:a", None, "x", "team:a", "team:b"], pa.string())
    assert ["a", None, None, "a", "b"] == tag_values(texts, "team").to_pylist()
    assert [] == tag_values(texts.slice(0, 0), "team").to_pylist()
