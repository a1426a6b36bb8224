"""What a usage type of Amazon Bedrock bills: which model, and which of its tokens.

Four grammars, as AWS' price list has them (offers AmazonBedrock, AmazonBedrockService and
AmazonBedrockFoundationModels, read in 2026) and its guide to cost and usage reports says
(docs.aws.amazon.com/bedrock/latest/userguide/cost-mgmt-understanding-cur-data.html):

    USE1-Claude4.5Sonnet-input-tokens[-cross-region-global][-batch|-flex|-priority]
    USW2-Claude4.6Sonnet-cache-read-input-token-count, …-cache-write-input-token-count-1-hour
    USE1-anthropic.claude-opus-5-mantle-cache-write-tokens-1h-global-standard
    USE1-MP:USE1_InputTokenCount_Global-Units, …_cache_write_tokens_1h_standard-Units

The last does not name the model: the product does (`Claude Sonnet 4.6 (Amazon Bedrock Edition)`);
its unit is a million tokens. A tier, a long context and another region have another price and the
same tokens. Reserved capacity is a fee. Other usage (guardrails, images) is a model of its own name.
"""

import re
from typing import Final

import msgspec

GLOBAL: Final = "global."
"""Begins the id of a model that is called wherever there is room, at a price of its own."""
_REGION: Final = re.compile(r"^[A-Z]{2,4}\d?-")
_MARKETPLACE: Final = re.compile(r"^MP:[A-Z0-9]+_(?P<what>.+?)(?:-Units)?$")
_TOKENS: Final = re.compile(
    r"^(?P<model>.+?)-(?:text-)?(?P<what>input|output|cache-read|cache-write)"
    r"(?:-(?P<mode>text|image|audio|video))?(?:-input)?[-_ ]?token(?:s|[-_ ]?count)?(?P<rest>(?:-.*)?)$",
    re.IGNORECASE,
)
_EDITION: Final = re.compile(r"\s*\(Amazon Bedrock[^)]*\)\s*$")
_RESERVED: Final = re.compile(r"provisioned[-_]?throughput|reserved|modelunit|tpm", re.IGNORECASE)
_HOUR: Final = re.compile(r"1[-_]?h(?:our)?(?![a-z])", re.IGNORECASE)
_CUSTOM: Final = "custom-model"
_MODES: Final = {"image": "image", "audio": "audio", "video": "video"}
_WHATS: Final = ("cacheread", "cachewrite", "input", "output")
TOKEN_UNITS: Final = {
    "1k tokens": 1_000, "1m tokens": 1_000_000, "1000 tokens": 1_000, "1000000 tokens": 1_000_000,
    "tokens": 1, "token": 1,
}  # fmt: skip
"""Tokens of a pricing unit, lower case."""
NAMES: Final = {
    # Usage types whose words are not those of the model's id, or of two ids.
    "claude3.5sonnet": "anthropic.claude-3-5-sonnet-20240620-v1:0",
    "claude3.5sonnetv2": "anthropic.claude-3-5-sonnet-20241022-v2:0",
    "titanembeddingv2": "amazon.titan-embed-text-v2:0",
    "titantextg1-lite": "amazon.titan-text-lite-v1",
    "titantextg1-express": "amazon.titan-text-express-v1",
}


class Metered(msgspec.Struct, frozen=True, kw_only=True):
    """What a usage type says; `meter` is a usage bucket, `requests` where it is no tokens."""

    model: str
    meter: str
    is_tokens: bool = True
    is_fee: bool = False
    """Capacity that is paid for whether it is used or not."""
    block: int | None = None
    """Tokens of one unit, where the usage type itself says it."""


def metered(usage_type: str, product: str | None) -> Metered:
    """Read a usage type; `product` is the product's name, if the report has it."""
    rest = _REGION.sub("", usage_type)
    name = _EDITION.sub("", product or "")
    if _RESERVED.search(rest):
        return Metered(model=rest, meter="requests", is_tokens=False, is_fee=True)
    sold = _MARKETPLACE.match(rest)
    if sold and name and "token" in sold["what"].lower():
        return _of_marketplace(sold["what"], name)
    found = _TOKENS.match(rest)
    if found is None:
        return Metered(model=rest, meter="requests", is_tokens=False)
    model = found["model"].removesuffix("-mantle")
    suffix = found["rest"].lower()
    if _CUSTOM in suffix:  # a model of the customer's own, at prices of its own
        model = f"{model}-{_CUSTOM}"
    mode = (found["mode"] or "").lower()
    what = found["what"].lower().replace("-", "")
    return Metered(
        model=_scoped(_id_of(model), is_global="global" in suffix),
        meter=_meter(what, mode, has_hour=bool(_HOUR.search(suffix))),
    )


def _of_marketplace(said: str, name: str) -> Metered:
    plain = said.lower().replace("_", "").replace("-", "")
    what = next((word for word in _WHATS if word in plain), "input")
    mode = next((mode for mode in _MODES if mode in plain), "")
    return Metered(
        model=_scoped(_id_of(name), is_global="global" in plain),
        meter=_meter(what, mode, has_hour="cachewrite1h" in plain),
        block=1_000_000,
    )


def _id_of(name: str) -> str:
    return NAMES.get(name.lower().replace(" ", ""), name)


def _scoped(model: str, *, is_global: bool) -> str:
    return GLOBAL + model if is_global and not model.startswith(GLOBAL) else model


def _meter(what: str, mode: str, *, has_hour: bool) -> str:
    if what == "cacheread":
        return "cache_read_audio" if mode == "audio" else "cache_read"
    if what == "cachewrite":
        return "cache_write_1h" if has_hour else "cache_write_5m"
    if what == "output":
        return f"output_{mode}" if mode in {"image", "audio"} else "output"
    return f"input_{mode}" if mode in _MODES else "input_uncached"
