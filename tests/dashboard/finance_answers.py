"""What the API would answer to the finance pages; amounts are written out by hand."""

from typing import Any, Final

import pyarrow as pa

TERMS: Final = (
    "volume", "mix", "recognition", "input_size", "cache", "output_size", "other_usage", "price",
    "retries", "duplicates", "new", "vanished",
)  # fmt: skip
MOVED: Final = {"volume": "120", "mix": "-30.5", "cache": "-12", "price": "48", "new": "4.5"}
WHEN: Final = {
    "start": "2026-11-13T00:00:00Z", "end": "2026-11-20T10:15:00Z", "zone": "UTC",
    "before_start": "2026-11-05T13:45:00Z", "before_end": "2026-11-13T00:00:00Z",
}  # fmt: skip
STEPS: Final = (
    ("volume", "400", "520"), ("mix", "520", "489.5"), ("cache", "489.5", "477.5"),
    ("price", "477.5", "525.5"), ("new", "525.5", "530"),
)  # fmt: skip
REPORT: Final = {
    "provider": "openai", "start": "2026-10-01T00:00:00Z", "end": "2026-11-01T00:00:00Z",
    "billed_usd": "1250.42", "ledger_usd": "1200.17", "difference_usd": "50.25",
    "classes": {
        "uncaptured": "31.2", "overcounted": "0", "cache_semantics": "-4.1", "time_boundary": "0",
        "price": "12.05", "rounding": "0.03", "tax_fees": "10", "unexplained": "1.07",
    },
    "unexplained_ratio": 0.000856, "tolerance_ratio": 0.005, "tolerance_usd": "1",
    "within_tolerance": True,
    "files": [{"name": "costs.json", "lines": 310, "rejected_lines": 2}],
    "rows": [
        {"day": "2026-10-03", "model": "gpt-4o", "meter": "output", "billed_usd": "41.2",
         "ledger_usd": "10", "difference_usd": "31.2", "classes": {"uncaptured": "31.2"}},
        {"day": "2026-10-04", "model": "gpt-4o", "meter": "output", "billed_usd": "9",
         "ledger_usd": "9", "difference_usd": "0", "classes": {}},
    ],
}  # fmt: skip

COMMITMENTS: Final = [
    {"contract": "openai-2026", "start": "2026-10-01T00:00:00Z", "end": "2026-11-01T00:00:00Z",
     "committed_usd": "500", "contracted_usd": "420.5", "effective_usd": "500",
     "drawn_usd": "420.5", "remaining_usd": "0", "shortfall_usd": "79.5", "overage_usd": "0",
     "drawn_ratio": 0.841},
    {"contract": "openai-2026", "start": "2026-11-01T00:00:00Z", "end": "2026-12-01T00:00:00Z",
     "committed_usd": "500", "contracted_usd": "612.25", "effective_usd": "612.25",
     "drawn_usd": "500", "remaining_usd": "0", "shortfall_usd": "0", "overage_usd": "112.25",
     "drawn_ratio": 1.0},
]  # fmt: skip
CONVERTED: Final = {
    "cost_usd": "30", "amount": "16.5", "days_without_rate": 1,
    "days": [
        {"day": "2026-11-18", "cost_usd": "12", "amount": None, "usd_per_unit": None,
         "rate_day": None, "rate_source": None},
        {"day": "2026-11-19", "cost_usd": "18", "amount": "16.5", "usd_per_unit": "1.0909",
         "rate_day": "2026-11-18", "rate_source": "ecb"},
    ],
    "groups": [
        {"group": "search", "cost_usd": "20", "amount": "11"},
        {"group": None, "cost_usd": "10", "amount": "5.5"},
    ],
    "start": "2026-11-18T00:00:00Z", "end": "2026-11-20T10:15:00Z", "zone": "UTC",
    "series": [
        {"day": "2026-11-19", "group": "search", "is_other": False, "cost_usd": "12", "amount": "6"},
        {"day": "2026-11-19", "group": None, "is_other": False, "cost_usd": "9", "amount": "4.5"},
        {"day": "2026-11-20", "group": "search", "is_other": False, "cost_usd": "8", "amount": "5"},
        {"day": "2026-11-20", "group": None, "is_other": True, "cost_usd": "1", "amount": "1"},
    ],
}  # fmt: skip


def finance_answer(path: str, asked: list[tuple[str, str]]) -> Any:
    """Answer a finance route; None for any other."""
    if path == "costs/change":
        return _change(asked)
    if path == "costs/cache":
        return _cache(dict(asked)["group_by"])
    if path == "showback":
        return _showback(dict(asked))
    if path == "concentration":
        return _concentration(dict(asked).get("dimension", "customer"))
    if path == "currencies/costs":
        return {"currency": dict(asked)["currency"], **CONVERTED}
    return _unit_costs() if path == "unit-costs" else _DOCUMENTS.get(path)


_DOCUMENTS: Final = {
    "contracts/commitments": {"rows": COMMITMENTS},
    "currencies": {"rows": ["CHF", "EUR"]},
    "reconciliations": {"rows": [{"id": "rec_1", **REPORT}]},
    "reconciliations/rec_1": REPORT,
}


def _showback(asked: dict[str, str]) -> tuple[pa.Table, dict[str, Any]]:
    """A team, a cost without one, and a pool's idle time that goes to the team by any rule."""
    moved = "0" if asked["idle"] == "none" else "72"
    rows: list[dict[str, Any]] = [
        {"kind": "owner", "name": "support", "own_usd": "24", "shared_usd": "0", "unpriced_calls": 0,
         "idle_usd": moved, "total_usd": "24" if moved == "0" else "96"},
        {"kind": "unattributed", "name": None, "own_usd": "7.5", "shared_usd": "0", "unpriced_calls": 3,
         "idle_usd": "0", "total_usd": "7.5"},
        {"kind": "idle", "name": "a100", "own_usd": "72", "shared_usd": "0", "unpriced_calls": 0,
         "idle_usd": "0" if moved == "0" else "-72", "total_usd": "72" if moved == "0" else "0"},
    ]  # fmt: skip
    return pa.Table.from_pylist(rows), {"totals": {"cost_usd": "103.5"}}


def _change(asked: list[tuple[str, str]]) -> tuple[pa.Table, dict[str, Any]]:
    row: dict[str, Any] = {"before_usd": "400", "after_usd": "530", "change_usd": "130"}
    for term in TERMS:
        row[f"{term}_usd"] = MOVED.get(term, "0")
        row[f"{term}_nusd"] = int(float(row[f"{term}_usd"]) * 10**9)
    row |= {"calls_before": 1000, "calls_after": 1300, "unpriced_before": 0, "unpriced_after": 2}
    group = dict(asked).get("group_by")
    rows = [{group: "support", **row}, {group: None, **row}] if group else [row]
    steps = [
        {"term": term, "start_usd": start, "end_usd": end, "change_usd": MOVED[term]}
        for term, start, end in STEPS
    ]
    meta = {**WHEN, "totals": row, "steps": steps, "terms": list(TERMS), "duplicates_sought": True}
    return pa.Table.from_pylist(rows), meta


def _unit_costs() -> tuple[pa.Table, dict[str, Any]]:
    blank = {"tenant": None, "is_business": False, "gap_days": None, "reason": None}
    rows: list[dict[str, Any]] = [
        {**blank, "figure": "request", "cost_usd": "530", "denominator": "1300",
         "unit_cost_usd": "0.407692308"},
        {**blank, "figure": "gpu_hour", "cost_usd": "0", "denominator": "0", "unit_cost_usd": None},
        {**blank, "figure": "active_user", "cost_usd": "0", "denominator": None,
         "unit_cost_usd": None, "reason": "users are counted over at most 31 days"},
        {"figure": "orders", "tenant": "acme", "is_business": True, "cost_usd": "530",
         "denominator": "212", "unit_cost_usd": "2.5", "gap_days": 2, "reason": None},
    ]  # fmt: skip
    return pa.Table.from_pylist(rows), {
        **WHEN,
        "unpriced_calls": 338,
        "unpriced_tokens": 1_521_000,
        "basis": "contracted",
    }


def what_if_answer(scenario: dict[str, Any]) -> dict[str, Any]:
    """A switch that saves a fifth; a batch tier that no price tells of; else a saving of a tenth."""
    told = {"scenario": scenario, "formula": ["new cost = sum"], "assumption": "", "features": []}
    money = {"old_usd": "10", "new_usd": "9", "moved_usd": "-1"}
    answer: dict[str, Any] = {
        **told, **money, "calls": 90, "not_compared": 10, "compared_ratio": 0.9,
        "policy_draft": None, "latency": [], "latency_reason": "no other model",
    }  # fmt: skip
    if scenario.get("service_tier"):
        return {**answer, "calls": 0, "not_compared": 100, "compared_ratio": 0.0}
    if scenario.get("model"):
        moved = {"old_usd": "10", "new_usd": "8", "moved_usd": "-2"}
        features = [
            {"feature": "answer", "calls": 90, "not_compared": 0, **moved},
            {"feature": None, "calls": 0, "not_compared": 10, "old_usd": "0", "new_usd": "0",
             "moved_usd": "0"},
        ]  # fmt: skip
        who = {"tenant": "acme", "provider": "openai", "operation": "chat"}
        took = {"calls": 1_090, "p50_ms": 2_400.0, "p95_ms": 9_100.0}
        latency = [
            {**who, "model": "gpt-5", "recorded": took, "reason": None, "p50_change_ms": -1_500.0,
             "other": {"calls": 40, "p50_ms": 900.0, "p95_ms": 9_200.0}, "p95_change_ms": 100.0},
            {**who, "model": "gpt-5", "tenant": "globex", "recorded": took, "reason": "no call",
             "other": None, "p50_change_ms": None, "p95_change_ms": None},
        ]  # fmt: skip
        draft = {"policy_draft": "rules:\n- id: switch\n", "latency": latency}
        return {**answer, **moved, **draft, "features": features, "latency_reason": None}
    return answer


def _cache(group: str) -> tuple[pa.Table, dict[str, Any]]:
    """A model that is read, one that is only written, and one whose price does not tell."""
    counts = {
        "calls": 1_000, "hit_calls": 420, "input_tokens": 2_000_000, "read_tokens": 900_000,
        "write_tokens": 100_000, "unknown_calls": 0, "unknown_tokens": 0,
        "calls_without_usage": 3, "gateway_answers": 4, "hit_ratio_tokens": 0.45,
        "hit_ratio_calls": 0.42,
    }  # fmt: skip
    names = ("read_saving_usd", "write_premium_usd", "net_saving_usd")
    money = (("2.43", "0.075", "2.355"), ("0", "3.5", "-3.5"), (None, None, None))
    rows = [
        {group: name, **counts, **dict(zip(names, usd, strict=True))}
        for name, usd in zip(("support", "search", None), money, strict=True)
    ]
    rows[2] |= {"unknown_calls": 7, "unknown_tokens": 12_000, "hit_ratio_calls": None}
    total = dict(zip(names, ("2.43", "3.575", "-1.145"), strict=True))
    totals = {**counts, **total, "calls": 3_000, "unknown_calls": 7, "unknown_tokens": 12_000}
    return pa.Table.from_pylist(rows), {**WHEN, "totals": totals}


def _concentration(dimension: str) -> tuple[pa.Table, dict[str, Any]]:
    rows = [
        {"rank": 1, dimension: "globex", "cost_usd": "400"},
        {"rank": 2, dimension: "acme", "cost_usd": "100"},
        {"rank": 3, dimension: "initech", "cost_usd": "30"},
    ]
    meta = {
        **WHEN, "dimension": dimension, "groups": 3, "cost_usd": "530", "gini": 0.4654,
        "half_groups": 1, "most_groups": 2,
        "curve": [{"groups": 1, "cost_usd": "400"}, {"groups": 2, "cost_usd": "500"},
                  {"groups": 3, "cost_usd": "530"}],
    }  # fmt: skip
    return pa.Table.from_pylist(rows), meta
