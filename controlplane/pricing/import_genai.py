"""genai-prices' data file (`data.json` of its releases) → sheets."""

import json
from hashlib import sha256

from genai_prices.types import _providers_from_raw

from controlplane.core.errors import InvalidInputError
from controlplane.pricing.seed import PriceList, read_data_set


def read_genai_prices(body: bytes) -> PriceList:
    """Read a data file; its version is named by its content.

    Raises:
        InvalidInputError: it is no such file.
    """
    try:
        providers = _providers_from_raw(json.loads(body))
    except ValueError:
        raise InvalidInputError(
            "file", "is not a genai-prices data file", "Take `data.json` of its releases"
        ) from None
    return read_data_set(providers, version=f"genai-prices:{sha256(body).hexdigest()[:8]}")
