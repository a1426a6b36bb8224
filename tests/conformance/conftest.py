"""The judge of recordings, and `inspect` as a function."""

import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import msgspec
import pytest

from controlplane.attribution.rules import with_organisation
from controlplane.pipelines.inspect import inspect_files
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.seed import listed_providers, seed_version

Document = dict[str, Any]


def _load(name: str) -> None:
    """Import a module beside the tests by its full name, before a test asks for it."""
    full_name = f"tests.conformance.{name}"
    spec = spec_from_file_location(full_name, Path(__file__).parent / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[full_name] = module_from_spec(spec)
    spec.loader.exec_module(module)


_load("judge")


@pytest.fixture(scope="session")
def inspect() -> Callable[..., Document]:
    """Answer the document that `controlplane inspect --json` prints for files."""
    book = PriceBook(seed_version(), listed_providers())
    rules = with_organisation([])

    def run(*paths: Path) -> Document:
        document: Document = msgspec.to_builtins(inspect_files(paths, book=book, rules=rules))
        return document

    return run
