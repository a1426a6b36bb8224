"""Price lists over HTTP: shown, reviewed, accepted; the same diff as the command's."""

from typing import Any

from controlplane.auth.roles import Scope

CSV = (
    "provider,model,bucket,usd\nopenai,mystery-1,input_uncached,2\nopenai,mystery-1,output_text,4\n"
)
WINDOW = {"start": "2026-11-19T00:00:00Z", "end": "2026-11-21T00:00:00Z"}
URL = "/api/v1/prices/imports"


def _post(client: Any, body: str, **params: str) -> Any:
    return client.post(
        URL,
        params={"format": "csv", **WINDOW, **params},
        content=body.encode(),
        headers={"content-type": "application/octet-stream"},
    )


def test_an_import_is_reviewed_with_the_calls_it_moves_and_then_accepted(
    api: Any, admin: str
) -> None:
    """The fixture's unpriced call of mystery-1 used 20 tokens in (none decomposed) and 10 out."""
    with api.client(admin) as client:
        shown = _post(client, CSV).json()
        assert ("previewed", None, "prices@0", 1, 0) == tuple(
            shown[name] for name in ("state", "version", "version_before", "added", "changed")
        )
        (change,) = shown["changes"]
        assert {("input_uncached", None, "2"), ("output_text", None, "4")} <= {
            (r["bucket"], r["old_usd_per_million"], r["new_usd_per_million"])
            for r in change["rates"]
        }
        assert "prices@0" == shown["version_before"]
        mystery = [g for g in shown["calls"]["groups"] if g["model"] == "mystery-1"]
        assert [("acme", 1, 1)] == [(g["tenant"], g["calls"], g["newly_priced"]) for g in mystery]
        assert 0 == api.services.price_history.latest()
        done = _post(client, CSV, accept=shown["review"]).json()
        assert ("applied", "prices@1") == (done["state"], done["version"])
        versions = client.get("/api/v1/prices/versions").json()["rows"]
    assert [f"import, review {shown['review']}"] == [one["note"] for one in versions]


def test_only_what_was_reviewed_is_accepted(api: Any, admin: str) -> None:
    """Another file, or another book than the one it was compared with, is a conflict."""
    with api.client(admin) as client:
        review = _post(client, CSV).json()["review"]
        assert 409 == _post(client, CSV.replace(",4", ",5"), accept=review).status_code
        contract = {"id": "c", "provider": "openai"}
        client.put("/api/v1/contracts/c", json=contract)
        assert 409 == _post(client, CSV, accept=review).status_code
        again = _post(client, CSV).json()
        assert "prices@1" == again["version_before"]
        assert "prices@2" == _post(client, CSV, accept=again["review"]).json()["version"]
        assert 0 == _post(client, CSV).json()["added"]


def test_wrong_files_and_callers_are_refused(api: Any, admin: str, keys: Any) -> None:
    with api.client(admin) as client:
        assert 400 == _post(client, "nonsense").status_code
        assert 400 == _post(client, CSV, effective="soon").status_code
        assert 400 == _post(client, CSV, start="2026-01-01T00:00:00Z").status_code
        assert 400 == client.post(URL, content=b"x").status_code
        assert 400 == _post(client, "{", format="litellm").status_code
    reader = keys.add(scopes=frozenset({Scope.PRICES_READ}), all_tenants=True)
    with api.client(reader) as client:
        assert 403 == _post(client, CSV).status_code
