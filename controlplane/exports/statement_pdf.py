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
from controlplane.exports.statement import UNATTRIBUTED, SharedRule, Statement, StatementLine

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
    SharedRule.NONE: "Cost without an owner is a statement of its own.",
    SharedRule.PROPORTIONAL: "Cost without an owner is shared in proportion to own cost.",
    SharedRule.EVEN: "Cost without an owner is shared evenly.",
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
        _draw_line(canvas, *line, right=width - MARGIN)
    canvas.save()
    return buffer.getvalue()


def _heading(canvas: Canvas, statement: Statement, height: float) -> float:
    zone = ZoneInfo(statement.zone)
    start, end = (at.astimezone(zone) for at in (statement.start, statement.end))
    change = statement.total_nusd - statement.previous_nusd
    owner = statement.owner or UNATTRIBUTED
    y = height - MARGIN
    canvas.setFont("Helvetica-Bold", LARGE)
    canvas.drawString(MARGIN, y, f"Statement {statement.period}")
    canvas.setFont("Helvetica", NORMAL)
    for text in (
        f"{statement.by.title()}: {written(owner)}    Tenant: {written(statement.tenant)}",
        f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}, {statement.zone}; the end is not included",
        f"Total USD {format_usd(statement.total_nusd)}",
        f"Period before USD {format_usd(statement.previous_nusd)}, change {format_usd(change)}",
        f"Excludes {statement.unpriced_calls} calls ({statement.unpriced_tokens} tokens) of no known price",
        _RULES[statement.shared_rule],
    ):
        y -= LINE + 2
        canvas.drawString(MARGIN, y, text)
    canvas.setFont("Helvetica", SMALL)
    canvas.drawString(MARGIN, y - LINE, f"{statement.id}  sha256 {statement.content_sha256}")
    return y - 3 * LINE


def _rows(
    canvas: Canvas, statement: Statement, top: float
) -> Iterator[tuple[float, StatementLine]]:
    """Yield where each line is drawn, page after page, and close the statement after the last."""
    y = top
    _titles(canvas, y)
    for line in statement.lines:
        y -= LINE
        if y < MARGIN + LINE:
            canvas.showPage()
            y = A4[1] - MARGIN
            _titles(canvas, y)
            y -= LINE
        yield y, line
    if y < MARGIN + 8 * LINE:
        canvas.showPage()
        y = A4[1] - MARGIN
    right = A4[0] - MARGIN
    canvas.setFont("Helvetica-Bold", NORMAL)
    canvas.line(MARGIN, y - 4, right, y - 4)
    canvas.drawString(MARGIN, y - LINE - 4, "Total USD")
    canvas.drawRightString(right, y - LINE - 4, format_usd(statement.total_nusd))
    canvas.setFont("Helvetica", SMALL)
    for place, word in ((MARGIN, "Approved by"), (_X[2], "Date")):
        canvas.line(place, y - 6 * LINE, place + 150, y - 6 * LINE)
        canvas.drawString(place, y - 7 * LINE, word)


def _titles(canvas: Canvas, y: float) -> None:
    canvas.setFont("Helvetica-Bold", SMALL)
    for x, title in zip(_X[:3], ("Provider", "Model", "Meter"), strict=True):
        canvas.drawString(x, y, title)
    canvas.drawRightString(_X[3] + 30, y, "Quantity")
    canvas.drawRightString(A4[0] - MARGIN, y, "USD")


def _draw_line(canvas: Canvas, y: float, line: StatementLine, *, right: float) -> None:
    canvas.setFont("Helvetica", SMALL)
    texts = (line.provider, line.model, line.meter)
    for x, text, most in zip(_X[:3], texts, _MOST, strict=True):
        canvas.drawString(x, y, _cut(written(text), most))
    if line.quantity:
        canvas.drawRightString(_X[3] + 30, y, f"{line.quantity:,}")
    canvas.drawRightString(right, y, format_usd(line.cost_nusd))


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
