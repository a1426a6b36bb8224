"""What-if over HTTP: the caller's tenants, the formula, and nothing changed."""

from typing import Any

BODY = {
    "start": "2026-11-20T00:00:00Z",
    "end": "2026-11-21T00:00:00Z",
    "scenario": {"model": "gpt-4o"},
}


def test_the_callers_calls_are_compared_and_the_formula_said(api: Any, acme: str) -> None:
    """The stored calls carry totals but no buckets: nothing of them can be priced anew."""
    with api.client(acme) as client:
        body = client.post("/api/v1/what-if", json=BODY).json()
    assert {"acme"} == {row["tenant"] for row in body["rows"]}
    assert body["calls"] + body["not_compared"] == 6
    assert any("gpt-4o" in line for line in body["formula"])
    assert "house@1" == body["price_book_version"].partition("+")[0]


def test_wrong_questions_are_refused(api: Any, acme: str) -> None:
    with api.client(acme) as client:
        for wrong in (
            {**BODY, "scenario": {}},
            {**BODY, "end": "2026-11-20T00:00:00Z"},
            {**BODY, "start": "2026-11-20T00:00:00"},
            {**BODY, "start": "2026-01-20T00:00:00Z"},
        ):
            assert 400 == client.post("/api/v1/what-if", json=wrong).status_code
        assert (
            403 == client.post("/api/v1/what-if", json={**BODY, "tenants": ["globex"]}).status_code
        )
