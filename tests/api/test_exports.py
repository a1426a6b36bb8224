"""Exports: asked for, made, downloaded, verified offline."""

import time
from typing import Any

import pytest

from controlplane.auth.roles import ROLE_SCOPES, Role
from controlplane.exports.verify import verify_export


@pytest.fixture
def auditor(keys: Any) -> str:
    key: str = keys.add("acme", scopes=ROLE_SCOPES[Role.AUDITOR])
    return key


def _finished(client: Any, export_id: str) -> Any:
    deadline = time.monotonic() + 60
    while (job := client.get(f"/api/v1/exports/{export_id}").json())["state"] == "running":
        assert time.monotonic() < deadline, job
        time.sleep(0.02)  # another thread works on it
    return job


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_an_export_downloads_and_verifies(api: Any, auditor: str, form: str) -> None:
    with api.client(auditor) as client:
        asked = client.post(
            "/api/v1/exports", json={"tenant": "acme", "range": "24h", "format": form}
        )
        assert asked.status_code == 202
        job = _finished(client, asked.json()["id"])
        assert ("done", 6) == (job["state"], job["rows"])
        copy: dict[str, bytes] = {}
        for name in job["files"]:
            answer = client.get(f"/api/v1/exports/{job['id']}/files/{name}")
            assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
            copy[name] = answer.content
    verified = verify_export(copy)
    assert (True, 6) == (verified.ok, verified.rows)


@pytest.mark.parametrize("name", ["../metadata.sqlite", "..%2f..%2fetc%2fpasswd", "nothing.csv"])
def test_only_files_of_the_manifest_can_be_downloaded(api: Any, auditor: str, name: str) -> None:
    with api.client(auditor) as client:
        asked = client.post("/api/v1/exports", json={"tenant": "acme"}).json()
        _finished(client, asked["id"])
        answer = client.get(f"/api/v1/exports/{asked['id']}/files/{name}")
    assert answer.status_code == 404


def test_exports_of_others_do_not_exist(api: Any, auditor: str, admin: str) -> None:
    with api.client(admin) as client:
        theirs = client.post("/api/v1/exports", json={"tenant": "globex"}).json()
        done = _finished(client, theirs["id"])
    with api.client(auditor) as client:
        assert client.post("/api/v1/exports", json={"tenant": "globex"}).status_code == 403
        assert client.get(f"/api/v1/exports/{theirs['id']}").status_code == 404
        for name in done["files"]:
            assert client.get(f"/api/v1/exports/{theirs['id']}/files/{name}").status_code == 404


def test_a_statement_takes_shares_for_fixed_only(api: Any, auditor: str) -> None:
    """Weights are whole numbers, and nothing else shares by them."""
    asked = {"tenant": "acme", "range": "24h", "kind": "statement", "shares": {"acme-team": 1}}
    with api.client(auditor) as client:
        fixed = client.post("/api/v1/exports", json={**asked, "shared": "fixed"})
        assert 202 == fixed.status_code
        assert "done" == _finished(client, fixed.json()["id"])["state"]
        for wrong in ({"shared": "even"}, {"shared": "fixed", "shares": {"acme-team": 0.5}}):
            assert 400 == client.post("/api/v1/exports", json={**asked, **wrong}).status_code


def test_an_export_that_fails_says_so_without_a_stack(
    api: Any, auditor: str, reader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(_query: object) -> None:
        raise RuntimeError("secret path")

    monkeypatch.setattr(reader, "call_batches", crash)
    with api.client(auditor) as client:
        asked = client.post("/api/v1/exports", json={"tenant": "acme"}).json()
        job = _finished(client, asked["id"])
    assert job["state"] == "failed"
    assert "secret" not in job["error"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"tenant": "acme", "format": "exe"}, "format"),
        ({"tenant": "acme", "range": "soon"}, "range"),
        ({"format": "csv"}, "tenant"),
    ],
)
def test_a_wrong_request_names_its_field(
    api: Any, auditor: str, body: dict[str, str], field: str
) -> None:
    with api.client(auditor) as client:
        answer = client.post("/api/v1/exports", json=body)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == field
