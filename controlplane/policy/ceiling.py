"""What a call can cost at most: integer arithmetic that never comes out below the bill (L1, L4).

The bill rounds each line item half-even, so up to half a nano-USD a line may be added to the exact
product. A ceiling rounds up and adds that for every bucket there is: a few nano-USD a call buy an
exact bound.
"""

from typing import Final

from controlplane.core.tokens import BUCKETS, MAX_QUANTITY
from controlplane.policy.document import RatePerMillion

MILLION: Final = 1_000_000
ROUNDING_NUSD: Final = (len(BUCKETS) + 1) // 2
"""Most that half-even rounding of one line per bucket can add up to."""


def call_ceiling_nusd(rate: RatePerMillion, *, input_tokens: int, output_tokens: int) -> int:
    """Return the most that a call of at most these tokens can be billed; 0 only when free.

    `output_tokens` is of all choices together.
    """
    tokens = input_tokens * rate.input_nusd + output_tokens * rate.output_nusd
    if not (rate.input_nusd or rate.output_nusd or rate.request_nusd):
        return 0
    return -(-tokens // MILLION) + rate.request_nusd + ROUNDING_NUSD


def output_tokens_within(
    rate: RatePerMillion, fits_nusd: int, *, input_tokens: int, choices: int = 1
) -> int:
    """Return the largest output per choice whose ceiling is at most `fits_nusd`; 0 when none is."""
    if rate.output_nusd <= 0:
        bare = call_ceiling_nusd(rate, input_tokens=input_tokens, output_tokens=0)
        return MAX_QUANTITY if bare <= fits_nusd else 0
    for_tokens = fits_nusd - rate.request_nusd - ROUNDING_NUSD
    left = for_tokens * MILLION - input_tokens * rate.input_nusd
    return max(0, left // (rate.output_nusd * choices))
