"""Writes the recorded bills of other forms: `python -m tests.pipelines.golden_bill_formats`.

The calls of `golden_calls` at claude-sonnet-4-5's 3.00 in, 0.30 cache read, 15.00 out a million tokens
(docs.claude.com, pricing), each bill with one residual planted, twice:

- Anthropic's usage and cost report, both pages in one file: costs in cents as decimal strings, tokens
  in a report of their own (docs.claude.com/en/api/admin-api/usage-cost). It has no taxes.
- FOCUS 1.2 as a cloud's marketplace writes it: a million tokens a unit, charge categories for taxes
  and credits, meters in words (focus.finops.org).
- LiteLLM's spend logs, a row of each day's requests: tokens with the cached ones inside, one amount
  (docs.litellm.ai, spend logs). It has no taxes, and its amounts are by model, not by meter.
- Any table of amounts and tokens, its columns named by `--map`.
"""

import csv
import io
import json
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from tests.pipelines.golden_calls import DAYS, FOLDER, MTOK, PLANTED, START, Lines, calls, lines_of

MODEL: Final = "claude-sonnet-4-5"
PRICES: Final = {"input": Decimal(3), "cache read": Decimal("0.30"), "output": Decimal(15)}
EXPECTED: Final = {
    "uncaptured": "0.36",  # 100,000 at 3 and 4,000 at 15
    "overcounted": "-0.1698",  # 40,000 at 3, 16,000 at 0.30, 3,000 at 15
    "cache_semantics": "1.728",  # 640,000 at 2.70 more
    "time_boundary": "-0.18",  # 50,000 at 3 and 2,000 at 15
    "price": "0.3894",  # 129,800 at 3 more
    "rounding": "-0.00100",
    "tax_fees": "3.2",  # a tax and a credit
    "unexplained": "5",
}
"""What each bill has planted, in dollars."""


DEARER: Final = "1.5582"
"""Everything a fifth dearer: 1,884,000 at 3, 640,000 at 0.30 and 129,800 at 15 are 7.791 dollars."""


def expected(source: str, name: str) -> Decimal:
    """Return what a form's bill has planted."""
    return Decimal(DEARER if (source, name) == ("litellm", "price") else EXPECTED[name])


def planted(source: str, name: str) -> Lines:
    """Return a bill's lines: the residual `name`, and nothing else.

    A form with one amount for all meters can not tell the price of one: there it is of all.
    """
    if (source, name) == ("litellm", "price"):
        return {
            at: [quantity, usd * Decimal("1.2")]
            for at, (quantity, usd) in lines_of(calls(), PRICES).items()
        }
    if name == "tax_fees":
        taxed = lines_of(calls(), PRICES)
        taxed[0, "Tax"] = [Decimal(0), Decimal("4.20")]
        taxed[1, "Credit"] = [Decimal(0), Decimal("-1.00")]
        return taxed
    return PLANTED[name](PRICES)


_TOKENS: Final = {
    "input": "uncached_input_tokens",
    "cache read": "cache_read_input_tokens",
    "output": "output_tokens",
}


def anthropic(lines: Lines) -> str:
    """Write the cost report and the usage report."""
    costs, usages = [], []
    for day in range(DAYS):
        of_day = {meter: line for (n, meter), line in sorted(lines.items()) if n == day}
        bounds = {f"{name}ing_at": (START + timedelta(days=at)).isoformat().replace("+00:00", "Z")
                  for name, at in (("start", day), ("end", day + 1))}  # fmt: skip
        costs.append({**bounds, "results": [_cost(m, line[1]) for m, line in of_day.items()]})
        used = {name: int(of_day[m][0]) if m in of_day else 0 for m, name in _TOKENS.items()}
        usages.append({**bounds, "results": [{**_USAGE, **used}]})
    pages = [{"data": data, "has_more": False, "next_page": None} for data in (costs, usages)]
    return json.dumps(pages, indent=1) + "\n"


_USAGE: Final[dict[str, Any]] = {
    "api_key_id": None, "workspace_id": None, "model": MODEL, "service_tier": "standard",
    "context_window": "0-200k", "server_tool_use": {"web_search_requests": 0},
    "cache_creation": {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 0},
}  # fmt: skip


def _cost(meter: str, usd: Decimal) -> dict[str, Any]:
    return {
        "currency": "USD", "amount": format((usd * 100).normalize(), "f"), "workspace_id": None,
        "description": f"Claude Sonnet 4.5 Usage - {meter.title()} Tokens", "cost_type": "tokens",
        "context_window": "0-200k", "model": MODEL, "service_tier": "standard",
        "token_type": _TOKENS[meter],
    }  # fmt: skip


_FOCUS: Final = (
    "BilledCost", "BillingCurrency", "ChargeCategory", "ChargePeriodStart", "ChargePeriodEnd",
    "ChargeDescription", "SkuId", "SkuMeter", "ConsumedQuantity", "ConsumedUnit",
)  # fmt: skip


def focus(lines: Lines) -> str:
    """Write a FOCUS CSV."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_FOCUS)
    for (day, meter), (quantity, usd) in sorted(lines.items()):
        bounds = [f"{START + timedelta(days=day + more):%Y-%m-%dT%H:%M:%SZ}" for more in (0, 1)]
        if meter in PRICES:
            used = [f"anthropic/{MODEL}", f"{meter.title()} Tokens",
                    format((quantity / MTOK).normalize(), "f"), f"{MTOK} Tokens"]  # fmt: skip
            rows.writerow([usd, "USD", "Usage", *bounds, f"Claude Sonnet 4.5, {meter}", *used])
        else:
            rows.writerow([usd, "USD", meter, *bounds, meter, "", "", "", ""])
    return text.getvalue()


def litellm(lines: Lines) -> str:
    """Write spend logs."""
    rows = []
    for day in range(DAYS):
        of_day = {meter: line for (n, meter), line in sorted(lines.items()) if n == day}
        tokens = {meter: int(line[0]) for meter, line in of_day.items()}
        cached = tokens.get("cache read", 0)
        usage = {"prompt_tokens_details": {"cached_tokens": cached}}
        rows.append({
            "request_id": f"chatcmpl-{day}", "startTime": f"{START + timedelta(days=day, hours=9)}",
            "model": f"anthropic/{MODEL}", "api_key": None, "metadata": {"usage_object": usage},
            "prompt_tokens": tokens.get("input", 0) + cached,
            "completion_tokens": tokens.get("output", 0),
            "spend": float(sum(line[1] for line in of_day.values())),
        })  # fmt: skip
    return json.dumps(rows, indent=1) + "\n"


PLAIN: Final = "day=Date,model=SKU,meter=Meter,kind=Kind,quantity=Units,cost=Amount"
"""The mapping that reads a plain table."""
_BUCKETS: Final = {"input": "input_uncached", "cache read": "cache_read", "output": "output"}


def plain(lines: Lines) -> str:
    """Write a CSV as somebody exports it."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["Date", "SKU", "Meter", "Kind", "Units", "Amount"])
    for (day, meter), (quantity, usd) in sorted(lines.items()):
        date = f"{START + timedelta(days=day):%Y-%m-%d}"
        used = (
            [MODEL, _BUCKETS[meter], "usage", quantity] if meter in PRICES else ["", "", meter, ""]
        )
        rows.writerow([date, *used, f"${usd}"])
    return text.getvalue()


FORMATS: Final[dict[str, tuple[str, Callable[[Lines], str]]]] = {
    "anthropic": ("anthropic.json", anthropic),
    "focus": ("focus.csv", focus),
    "litellm": ("litellm.json", litellm),
    "plain": ("plain.csv", plain),
}
WITHOUT: Final = {("anthropic", "tax_fees"), ("litellm", "tax_fees")}
"""What a format can not say."""


def main() -> None:
    """Write every bill."""
    for source, (ending, write) in FORMATS.items():
        for name in EXPECTED:
            if (source, name) not in WITHOUT:
                (FOLDER / f"{name}.{ending}").write_text(
                    write(planted(source, name)), encoding="utf-8"
                )


if __name__ == "__main__":
    main()
