"""The shape of the code: what reviewers would otherwise have to measure."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = sorted(
    path
    for package in ("controlplane", "collectors", "dashboard")
    for path in (ROOT / package).rglob("*.py")
    if not path.name.endswith("_pb2.py")
)
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 70
VAGUE = {"utils", "helpers", "common", "manager", "misc", "base"}
HOUSE = r"/(work|root|home/\w+)/"


def _id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_there_is_code_to_measure() -> None:
    """The other checks of this file look at something."""
    assert len(CODE) > 50


@pytest.mark.parametrize("path", CODE, ids=_id)
def test_file_and_functions_stay_small(path: Path) -> None:
    """500 lines a file, 70 a function; generated files are exempt."""
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_FILE_LINES
    long = [
        f.name
        for f in _functions(ast.parse(text))
        if (f.end_lineno or f.lineno) - f.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert [] == long


@pytest.mark.parametrize("path", CODE, ids=_id)
def test_name_says_what_is_inside(path: Path) -> None:
    """No drawer for everything."""
    assert path.stem not in VAGUE
    assert path.parent.name not in VAGUE


def test_no_mock_and_no_bare_ignore() -> None:
    """Fakes are ordinary code; an exception to a rule names the rule and the reason."""
    wrong = [
        _id(path)
        for path in [*CODE, *(ROOT / "tests").rglob("*.py")]
        if path != Path(__file__)
        and re.search(
            r"unittest\.mock|MagicMock|type: ignore(?!\[)|noqa(?!:)|pragma: no cover",
            path.read_text(),
        )
    ]
    assert [] == wrong


def test_nothing_names_a_machine() -> None:
    """The project speaks of itself alone."""
    wrong = [
        _id(path)
        for pattern in ("*.py", "*.md", "*.toml", "*.sh", "*.yaml", "*.sql", "Makefile")
        for path in ROOT.rglob(pattern)
        if not {".venv", ".venvs", "var", "corpus"} & set(path.relative_to(ROOT).parts)
        and path != Path(__file__)
        and re.search(HOUSE, path.read_text())
    ]
    assert [] == wrong


def test_migrations_are_dated_and_make_one_chain() -> None:
    """`YYYY_MM_DD_HHMM_slug.py`, each after the one before it."""
    files = sorted((ROOT / "migrations" / "versions").glob("*.py"))
    assert files
    assert [] == [
        f.name for f in files if not re.fullmatch(r"\d{4}(_\d\d){2}_\d{4}_\w+\.py", f.name)
    ]
    parents = [re.search(r"^down_revision[^=]*= (.+)$", f.read_text(), re.MULTILINE) for f in files]
    named = [p.group(1).strip() for p in parents if p]
    assert len(files) == len(named) == len(set(named))
