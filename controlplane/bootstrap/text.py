"""Answers as a person reads them in a terminal; `--json` prints the same answers whole."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from controlplane.bootstrap.offline import PriceAnswer
from controlplane.bootstrap.policy_files import PlannedFile
from controlplane.core.money import NUSD_PER_USD, format_usd
from controlplane.core.tokens import BUCKETS, Unit
from controlplane.exports.manifest import Manifest
from controlplane.exports.verify import Verification
from controlplane.pipelines.import_prices import ImportAnswer
from controlplane.pipelines.inspect import InspectReport
from controlplane.pipelines.invoices import NOT_NAMED
from controlplane.pipelines.reconcile_report import ReconciliationReport
from controlplane.pipelines.rerate_answer import RerateAnswer

WIDTH = 140
NO_PRICE = "no price: write one into `price_overrides`, or import a list that has it"
UNITS = {bucket.name: bucket.unit for bucket in BUCKETS}
MAX_CELLS = 50


def _drawn(*parts: object) -> str:
    buffer = StringIO()
    console = Console(file=buffer, width=WIDTH, highlight=False)
    for part in parts:
        console.print(part)
    return buffer.getvalue().rstrip("\n")


def inspection(report: InspectReport) -> str:
    """Draw the calls of an inspection and its findings."""
    table = Table("call", "provider", "model", "in", "cached", "out", "cost USD", "not billed")
    for call in report.calls:
        cost = (
            call.cost_usd if call.cost_usd is not None else f"{call.cost_state}: {call.cost_reason}"
        )
        cells = (call.input_tokens, call.cached_input_tokens, call.output_tokens)
        table.add_row(
            call.call_id,
            call.provider or "-",
            call.request_model or call.response_model or "-",
            *("-" if cell is None else str(cell) for cell in cells),
            cost,
            ", ".join(f"{one.span_id} ({one.reason})" for one in call.suppressed) or "-",
        )
    findings = [f"{f.severity}: {f.code}: {f.message}" for f in report.findings]
    drawn = [table] if report.calls else []
    counts = f"{_many(report.spans, 'span')}, {_many(len(report.calls), 'call')}"
    return _drawn(*drawn, counts, *findings)


def _usd(amount: str) -> str:
    """Write an exact amount; its sign goes before the dollar."""
    return f"-${amount[1:]}" if amount.startswith("-") else f"${amount}"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def priced(answer: PriceAnswer) -> str:
    """Draw a price's line items and where they are from."""
    table = Table("bucket", "quantity", "price", "USD")
    for item in answer.line_items:
        bucket = str(item["bucket"])
        cells = (bucket, item["quantity"], _rate(bucket, str(item["rate_nusd"])), item["cost_usd"])
        table.add_row(*(str(cell) for cell in cells))
    total = f"total ${answer.total_usd}" if answer.total_usd is not None else "no total"
    why = f" ({answer.cost_reason})" if answer.cost_reason else ""
    found = f"{answer.price_id}, {answer.price_provenance}" if answer.price_id else NO_PRICE
    drawn = [table] if answer.line_items else []
    return _drawn(*drawn, f"{total}, {answer.cost_state}{why}", found)


def _rate(bucket: str, rate_nusd: str) -> str:
    """Write a rate as price lists do: tokens and characters by the million, others each."""
    per_million = UNITS[bucket] in {Unit.TOKEN, Unit.CHARACTER}
    usd = Decimal(rate_nusd) * (10**6 if per_million else 1) / NUSD_PER_USD
    exact = usd.normalize()
    cents = max(2, -int(exact.as_tuple().exponent))
    return f"${exact:,.{cents}f} {'per million' if per_million else 'each'}"


def rerated(answer: RerateAnswer) -> str:
    """Draw what a re-rate moves, by tenant and model."""
    table = Table("tenant", "model", "calls", "newly priced", "old USD", "new USD", "moved USD")
    for group in answer.groups:
        names = ("tenant", "model", "calls", "newly_priced", "old_usd", "new_usd", "moved_usd")
        table.add_row(*(str(group[name]) for name in names))
    said = f"{answer.state}: {_many(answer.calls, 'call')} at another cost, "
    said += f"{answer.corrections:,} of them as corrections, "
    return _drawn(table, f"{said}{_usd(answer.moved_usd)} moved, {answer.price_version}")


def imported(answer: ImportAnswer) -> str:
    """Draw what an import changes, rate by rate, and what it moves."""
    table = Table("model", "", "row", "above", "bucket", "old USD/M", "new USD/M")
    for change in answer.changes:
        for rate in change.rates:
            above = "" if rate.above_input_tokens < 0 else str(rate.above_input_tokens)
            old, new = rate.old_usd_per_million or "-", rate.new_usd_per_million or "-"
            table.add_row(change.key, change.change, rate.row, above, rate.bucket, old, new)
    counts = f"{answer.added} added, {answer.changed} changed, {answer.removed} removed"
    moved = rerated(answer.calls) if answer.calls else str(answer.calls_note)
    left = f"left out: {answer.left_out}" if answer.left_out else ""
    said = f"{answer.state}: {answer.source} on {answer.version_before}: {counts}"
    return _drawn(table, said, left, moved)


def compared(answer: Mapping[str, Any]) -> str:
    """Draw a what-if by tenant and model, and the formula under it."""
    names = ("tenant", "model", "calls", "not_compared", "old_usd", "new_usd", "moved_usd")
    table = Table(*names)
    for row in answer["rows"]:
        table.add_row(*(str(row[name]) for name in names))
    old, new, moved = (_usd(answer[f"{name}_usd"]) for name in ("old", "new", "moved"))
    total = f"{old} → {new}: {moved} moved"
    return _drawn(table, total, *_latencies(answer), *answer["formula"], answer["assumption"])


def _latencies(answer: Mapping[str, Any]) -> list[str]:
    """Say a line a tenant, model and operation of what was measured, or why nothing was."""
    if answer["latency_reason"]:
        return [f"latency: {answer['latency_reason']}"]
    lines = []
    for row in answer["latency"]:
        said = (
            f"latency, {row['tenant']} {row['model']} {row['operation']}: {_ranks(row['recorded'])}"
        )
        if row["other"]:
            lines.append(f"{said} → {_ranks(row['other'])}")
        else:
            lines.append(f"{said} → unknown: {row['reason']}")
    return lines


def _ranks(told: Mapping[str, Any]) -> str:
    return f"p50 {told['p50_ms']:,.0f} ms, p95 {told['p95_ms']:,.0f} ms of {told['calls']} calls"


def verification(result: Verification) -> str:
    """Say whether an export is as it was signed, and what is not."""
    verdict = "OK" if result.ok else "NOT OK"
    size = (
        f"{_many(result.files, 'file')}, {_many(result.rows, 'row')}, "
        f"{_usd(format_usd(result.total_nusd))}"
    )
    lines = [f"{verdict}: {result.export_id}, {size}"]
    lines += [
        f"{finding.severity}: {finding.code}: {finding.file or 'manifest'}: {finding.message}"
        for finding in result.findings
    ]
    return "\n".join(lines)


def exported(out: Path, manifest: Manifest) -> str:
    """Say what an export holds and how to check it."""
    left_out = f", {manifest.unpriced_rows:,} of them unpriced" if manifest.unpriced_rows else ""
    size = f"{_many(manifest.rows, 'row')}{left_out}, {_usd(format_usd(manifest.total_nusd))}"
    return f"{out}: {size}, signed; check it with `controlplane verify {out}`"


def figures(result: Mapping[str, object]) -> str:
    """Draw a benchmark's figures, one section after the other."""
    table = Table("", "", "")
    for section, values in result.items():
        for name, value in values.items() if isinstance(values, Mapping) else [("", values)]:
            table.add_row(section, str(name), _figure(value))
    return _drawn(table)


def _figure(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_figure(inner)}" for key, inner in value.items())
    return str(value)


def planned_policy(planned: Sequence[PlannedFile]) -> str:
    """Draw what files would change, as `diff -u` does."""
    parts = []
    for each in planned:
        if each.plan is None:
            continue
        head = f"{each.file}: scope {each.scope}, in force {each.plan['in_force'] or 'nothing'}"
        if not each.has_changes:
            parts.append(f"{head}: no changes")
            continue
        size, nodes = each.plan["document_bytes"], each.plan["nodes"]
        parts.append(f"{head}: {nodes} nodes, a document of {size} bytes")
        parts.append(each.plan["diff"].rstrip())
        if each.plan["unable"]:
            parts.append(f"These nodes would refuse it: {', '.join(each.plan['unable'])}")
        if each.plan["needs_approval"]:
            parts.append("Applying proposes it: somebody else has to approve.")
    return "\n".join(parts)


def reconciliation(report: ReconciliationReport) -> str:
    """Draw what a difference is made of, and the cells that are not equal."""
    classes = Table("of the difference", "USD")
    for name, usd in report.classes.items():
        classes.add_row(name.replace("_", " "), usd)
    cells = Table("day", "model", "meter", "billed", "ours", "difference", "because")
    shown = [row for row in report.rows if row.classes]
    for row in shown[:MAX_CELLS]:
        because = ", ".join(f"{name} {usd}" for name, usd in row.classes.items())
        named = (row.model or "-", row.meter or "-")
        amounts = (row.billed_usd, row.ledger_usd, row.difference_usd)
        cells.add_row(str(row.day), *named, *amounts, because)
    total = f"billed {_usd(report.billed_usd)}, ours {_usd(report.ledger_usd)}"
    verdict = "within" if report.within_tolerance else "ABOVE"
    limit = f"{report.tolerance_ratio:.2%} or ${report.tolerance_usd}"
    told = [f"{file.name}: {file.rejected_lines} lines not used" for file in report.files
            if file.rejected_lines]  # fmt: skip
    more = [f"and {len(shown) - MAX_CELLS} more cells"] if len(shown) > MAX_CELLS else []
    return _drawn(
        f"{report.provider}, {report.start:%Y-%m-%d} to {report.end:%Y-%m-%d} ({report.zone}): {total}",
        classes,
        cells,
        *more,
        *told,
        f"unexplained {report.unexplained_ratio:.2%}: {verdict} the tolerance of {limit}",
        *_invoice(report),
    )


def _invoice(report: ReconciliationReport) -> list[str]:
    """Say whether exports will name the invoice, where the bill names any."""
    if report.invoice_id is None and report.invoice_note == NOT_NAMED:
        return []
    named = f"invoice {report.invoice_id}" if report.invoice_id else "invoices"
    return [f"{named}: {report.invoice_note or 'ties out; once recorded, FOCUS rows name it'}"]


def replayed(report: Mapping[str, Any]) -> str:
    """Draw a replay: the sums, who is blocked, the dearest calls, what is assumed."""
    sums = (
        f"{report['calls']} calls, {report['changed_calls']} would have been others. Cost USD "
        f"{format_usd(report['cost_before_nusd'])} before, "
        f"{format_usd(report['cost_after_nusd'])} after: saved "
        f"{format_usd(report['saved_nusd'])}. Unknown cost: {report['unknown_cost_calls']} calls."
    )
    blocked = Table("team", "blocked calls", "their cost USD")
    for row in report["blocked_by_team"]:
        blocked.add_row(
            row["team"] or "unattributed", str(row["calls"]), format_usd(row["cost_nusd"])
        )
    calls = Table("call", "team", "model", "effect", "by", "USD", "would be USD")
    for call in report["listed"]:
        cells = (call["cost_nusd"], call["new_cost_nusd"])
        calls.add_row(
            call["call_id"],
            call["team"] or "-",
            call["model"] if not call["new_model"] else f"{call['model']} → {call['new_model']}",
            call["effect"],
            call["by"] or "-",
            *("-" if cell is None else format_usd(cell) for cell in cells),
        )
    change = report["latency_change_ms_mean"]
    latency = "not known" if change is None else f"{change:+.0f} ms on average"
    more = f"{report['not_listed']} more calls are not listed." if report["not_listed"] else ""
    notes = "\n".join(f"- {each}" for each in report["assumptions"])
    return _drawn(
        sums, blocked, calls, more, f"Latency of calls on another model: {latency}.", notes
    )
