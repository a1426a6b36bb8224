"""`inspect` as a function, for the judge of recordings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from controlplane.attribution.rules import with_organisation
from controlplane.pipelines.inspect import inspect_files
from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.seed import listed_providers, seed_version

Document = dict[str, Any]


@pytest.fixture(scope="session")
def inspect() -> Callable[..., Document]:
    """Answer the document that `controlplane inspect --json` prints for files."""
    book = PriceBook(seed_version(), listed_providers())
    rules = with_organisation([])

    def run(*paths: Path) -> Document:
        document: Document = msgspec.to_builtins(inspect_files(paths, book=book, rules=rules))
        return document

    return run
