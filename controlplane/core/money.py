"""Nano-USD: the one unit of stored money, and the only places where text and ratios meet it.

Invariants: an amount is an `int` of nano-USD (10^-9 USD) inside the signed 64-bit range; a float
never takes part; a product is rounded half-even once, at the line item; a split sums to the whole.
"""

from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Final

from controlplane.core.errors import InvalidInputError

NUSD_PER_USD: Final = 1_000_000_000
MAX_NUSD: Final = 2**63 - 1


def parse_usd(text: str, *, field: str = "amount") -> int:
    """Read a decimal string of USD as nano-USD.

    Raises:
        InvalidInputError: not a finite decimal, more than nine decimals, or outside 64 bits.
    """
    try:
        exact = Decimal(text) * NUSD_PER_USD
    except InvalidOperation:
        raise InvalidInputError(
            field, f"{text!r} is not a decimal", 'Write USD like "12.50"'
        ) from None
    if not exact.is_finite() or exact != exact.to_integral_value():
        raise InvalidInputError(field, f"{text!r} has more than nine decimals or is not finite")
    if abs(exact) > MAX_NUSD:
        raise InvalidInputError(field, f"{text!r} is above 9.2 billion USD")
    return int(exact)


def format_usd(nusd: int) -> str:
    r"""Write nano-USD as the shortest exact decimal string of USD: `-?\d+(\.\d{1,9})?`."""
    sign = "-" if nusd < 0 else ""
    whole, rest = divmod(abs(nusd), NUSD_PER_USD)
    return f"{sign}{whole}" if not rest else f"{sign}{whole}." + f"{rest:09d}".rstrip("0")


def round_usd(nusd: int) -> str:
    """Write nano-USD for people: to the cent, below one dollar to two significant digits.

    For sentences only: what is compared or added stays exact.
    """
    exact = Decimal(abs(nusd)).scaleb(-9)
    decimals = 2 if exact >= 1 or not exact else max(2, 1 - exact.adjusted())
    rounded = exact.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_EVEN)
    return f"{'-' if nusd < 0 else ''}${rounded:,f}"


def divide_half_even(numerator: int, denominator: int) -> int:
    """Divide exactly and round once, ties to even; `denominator` > 0."""
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient % 2):
        return quotient + 1
    return quotient


def split_largest_remainder(total: int, weights: list[int]) -> list[int]:
    """Split `total` in proportion to `weights` so that the parts sum to it exactly.

    The units left over go to the largest remainders, ties to the earlier weight (Hamilton's
    method). Zero weights throughout put everything on the first party.

    Raises:
        ValueError: no weights, or a negative one.
    """
    if not weights or min(weights) < 0:
        msg = "weights must be non-empty and non-negative"
        raise ValueError(msg)
    whole = sum(weights)
    if whole == 0:
        return [total] + [0] * (len(weights) - 1)
    shares = [divmod(total * weight, whole) for weight in weights]
    parts = [quotient for quotient, _ in shares]
    order = sorted(range(len(weights)), key=lambda i: (-shares[i][1], i))
    for i in order[: total - sum(parts)]:
        parts[i] += 1
    return parts
