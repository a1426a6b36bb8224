"""The most a call can cost, in integers: what a hold is made of (algorithms L1, L4)."""

from typing import Final

from controlplane.policy.document import RatePerMillion

TOKENS_PER_RATE: Final = 1_000_000
ROUNDING_NUSD: Final = 16
"""Each line item of a priced call is rounded half-even once, so the sum of up to 17 of them may
exceed the exact product by less than nine nano-USD; a ceiling must not be below any price."""


def call_ceiling_nusd(rate: RatePerMillion, *, input_tokens: int, output_tokens: int) -> int:
    """Return what a call of at most these tokens can cost at most, rounded up."""
    scaled = input_tokens * rate.input_nusd + output_tokens * rate.output_nusd
    return -(-scaled // TOKENS_PER_RATE) + rate.request_nusd + ROUNDING_NUSD


def output_tokens_within(
    rate: RatePerMillion, amount_nusd: int, *, input_tokens: int, choices: int = 1
) -> int:
    """Return the largest output limit per choice whose ceiling is within `amount_nusd`.

    Zero when not even the input fits; without an output price, the largest representable limit.
    """
    spendable = (amount_nusd - rate.request_nusd - ROUNDING_NUSD) * TOKENS_PER_RATE
    spendable -= input_tokens * rate.input_nusd
    if spendable < 0:
        return 0
    if rate.output_nusd == 0:
        return 2**31 - 1
    return spendable // (rate.output_nusd * choices)
