r"""A statement as PDF: the same bytes for the same statement.

The standard fonts know Western European letters; any other letter of a name is written as its code
point, `\u4e2d`. The CSV beside it has every name as it is.
"""

from collections.abc import Iterator
from io import BytesIO
from typing import Final
from zoneinfo import ZoneInfo

from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

from controlplane.core.money import format_usd
from controlplane.exports.sharing import UNATTRIBUTED, SharedRule
from controlplane.exports.statement import Statement
from controlplane.exports.statement_currency import HOW, Billing
from controlplane.exports.statement_lines import StatementLine
from controlplane.pricing.currency import USD

MARGIN: Final = 48
LINE: Final = 14
SMALL: Final = 8
NORMAL: Final = 10
LARGE: Final = 16
_X: Final = (MARGIN, 150, 330, 440)
"""Where provider, model and meter start, and where quantities end."""
_MOST: Final = (17, 34, 24)
"""Letters that fit in these columns."""
_RULES: Final = {
    SharedRule.PROPORTIONAL: "is shared in proportion to own cost",
    SharedRule.EVEN: "is shared evenly",
    SharedRule.FIXED: "is shared by fixed weights",
}


def to_pdf(statement: Statement) -> bytes:
    """Draw the statement; amounts are exact and the lines sum to the total."""
    buffer = BytesIO()
    # `invariant`: no clock and no random id in the file.
    canvas = Canvas(buffer, pagesize=A4, pageCompression=0, invariant=1)
    canvas.setTitle(f"{statement.id} {statement.period}")
    width, height = A4
    top = _heading(canvas, statement, height)
    for line in _rows(canvas, statement, top):
        _draw_line(canvas, line, right=width - MARGIN)
    canvas.save()
    return buffer.getvalue()


def _heading(canvas: Canvas, statement: Statement, height: float) -> float:
    zone = ZoneInfo(statement.zone)
    start, end = (at.astimezone(zone) for at in (statement.start, statement.end))
    owner = statement.owner or UNATTRIBUTED
    y = height - MARGIN
    canvas.setFont("Helvetica-Bold", LARGE)
    canvas.drawString(MARGIN, y, f"Statement {statement.period}")
    canvas.setFont("Helvetica", NORMAL)
    for text in (
        f"{statement.by.title()}: {written(owner)}    Tenant: {written(statement.tenant)}",
        f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}, {statement.zone}; the end is not included",
        *_totals(statement),
        f"Excludes {statement.unpriced_calls} calls ({statement.unpriced_tokens} tokens) of no known price",
        *_rules(statement),
    ):
        y -= LINE + 2
        canvas.drawString(MARGIN, y, text)
    canvas.setFont("Helvetica", SMALL)
    canvas.drawString(MARGIN, y - LINE, f"{statement.id}  sha256 {statement.content_sha256}")
    return y - 3 * LINE


def _rules(statement: Statement) -> Iterator[str]:
    """Yield by which rule each kind of cost was shared."""
    yield _rule("Cost without an owner", statement.shared_rule, statement.share)
    if statement.idle_rule is not SharedRule.NONE:
        yield _rule("Idle GPU time", statement.idle_rule, statement.idle_share)
        if statement.idle_rule is SharedRule.PROPORTIONAL:
            yield "Own cost is there what the pool's calls cost; what nobody used is not shared."


def _rule(what: str, rule: SharedRule, share: tuple[int, int] | None) -> str:
    if rule is SharedRule.NONE:
        return f"{what} is a statement of its own."
    here = f", here {share[0]} of {share[1]}" if share else ""
    return f"{what} {_RULES[rule]}{here}."


def _totals(statement: Statement) -> Iterator[str]:
    """Yield the total and the period before, in the billing currency where there is one."""
    billing = statement.billing
    change = format_usd(statement.total_nusd - statement.previous_nusd)
    before = f"Period before USD {format_usd(statement.previous_nusd)}, change {change}"
    if billing is None:
        yield f"Total USD {format_usd(statement.total_nusd)}"
        yield before
        return
    code, total = billing.currency, billing.total_nano
    yield f"Total {code} {format_usd(total)} (USD {format_usd(statement.total_nusd)})"
    if billing.previous_nano is None:
        yield f"{before}; no {code} rate for all of it"
    else:
        change = format_usd(total - billing.previous_nano)
        yield f"Period before {code} {format_usd(billing.previous_nano)}, change {change}"
    yield HOW


def _rows(
    canvas: Canvas, statement: Statement, top: float
) -> Iterator[tuple[float, StatementLine, int]]:
    """Yield where each line is drawn, page after page, and close the statement after the last."""
    y = top
    unit = statement.billing.currency if statement.billing else USD
    _titles(canvas, y, unit)
    for place, line in enumerate(statement.lines):
        y -= LINE
        if y < MARGIN + LINE:
            canvas.showPage()
            y = A4[1] - MARGIN
            _titles(canvas, y, unit)
            y -= LINE
        billing = statement.billing
        yield y, line, billing.of_line(place) if billing else line.cost_nusd
    if y < MARGIN + 8 * LINE:
        canvas.showPage()
        y = A4[1] - MARGIN
    right = A4[0] - MARGIN
    canvas.setFont("Helvetica-Bold", NORMAL)
    canvas.line(MARGIN, y - 4, right, y - 4)
    canvas.drawString(MARGIN, y - LINE - 4, f"Total {unit}")
    total = statement.billing.total_nano if statement.billing else statement.total_nusd
    canvas.drawRightString(right, y - LINE - 4, format_usd(total))
    if statement.billing:
        y = _rates(canvas, statement.billing, y - 3 * LINE)
    canvas.setFont("Helvetica", SMALL)
    for place, word in ((MARGIN, "Approved by"), (_X[2], "Date")):
        canvas.line(place, y - 6 * LINE, place + 150, y - 6 * LINE)
        canvas.drawString(place, y - 7 * LINE, word)


def _rates(canvas: Canvas, billing: Billing, y: float) -> float:
    """Draw every dated rate with what was converted at it, and return where there is room below."""
    canvas.setFont("Helvetica-Bold", SMALL)
    titles = ("Rate of", "Source", f"USD for 1 {billing.currency}", "Converted USD")
    for x, title in zip(_X[:3], titles[:3], strict=True):
        canvas.drawString(x, y, title)
    canvas.drawRightString(_X[3] + 30, y, titles[3])
    canvas.drawRightString(A4[0] - MARGIN, y, billing.currency)
    for use in billing.rates:
        y -= LINE
        if y < MARGIN + LINE:
            canvas.showPage()
            y = A4[1] - MARGIN
        canvas.setFont("Helvetica", SMALL)
        texts = (use.day.isoformat(), use.source, use.usd_per_unit)
        for x, text, most in zip(_X[:3], texts, _MOST, strict=True):
            canvas.drawString(x, y, _cut(written(text), most))
        canvas.drawRightString(_X[3] + 30, y, format_usd(use.cost_nusd))
        canvas.drawRightString(A4[0] - MARGIN, y, format_usd(use.amount_nano))
    if y < MARGIN + 8 * LINE:
        canvas.showPage()
        y = A4[1] - MARGIN
    return y


def _titles(canvas: Canvas, y: float, unit: str) -> None:
    canvas.setFont("Helvetica-Bold", SMALL)
    for x, title in zip(_X[:3], ("Provider", "Model", "Meter"), strict=True):
        canvas.drawString(x, y, title)
    canvas.drawRightString(_X[3] + 30, y, "Quantity")
    canvas.drawRightString(A4[0] - MARGIN, y, unit)


def _draw_line(canvas: Canvas, line: tuple[float, StatementLine, int], *, right: float) -> None:
    y, said, amount_nano = line
    canvas.setFont("Helvetica", SMALL)
    texts = (said.provider, said.model, said.meter)
    for x, text, most in zip(_X[:3], texts, _MOST, strict=True):
        canvas.drawString(x, y, _cut(written(text), most))
    if said.quantity:
        canvas.drawRightString(_X[3] + 30, y, f"{said.quantity:,}")
    canvas.drawRightString(right, y, format_usd(amount_nano))


def written(text: str) -> str:
    """Write a text in the letters that the font has."""
    return "".join(letter if _is_known(letter) else f"\\u{ord(letter):04x}" for letter in text)


def _is_known(letter: str) -> bool:
    try:
        letter.encode("cp1252")
    except UnicodeEncodeError:
        return False
    return letter.isprintable()


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
