"""The seeded book, compiled once."""

import pytest

from controlplane.pricing.price_book import PriceBook
from controlplane.pricing.seed import listed_providers, seed_version


@pytest.fixture(scope="session")
def book() -> PriceBook:
    return PriceBook(seed_version(), listed_providers())
