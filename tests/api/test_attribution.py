"""Attribution rules over HTTP: read, replaced as a new version, refused with the field's name."""

from typing import Any

import pytest

SHARE = {"id": "bots", "dimension": "user_id", "values": ["bot"], "teams": {"a": 1, "b": 2}}
DOCUMENT = {
    "rules": [{"id": "squad", "dimension": "team", "attribute": "squad.name"}],
    "shares": [SHARE],
}


def test_a_new_version_is_in_force_and_the_old_one_is_kept(api: Any, admin: str) -> None:
    with api.client(admin) as client:
        before = client.get("/api/v1/attribution/rules").json()
        assert 0 == before["organisation"]["version"]
        assert "default:team.id" in [rule["id"] for rule in before["built_in"]]
        first = client.put(
            "/api/v1/attribution/rules", json={"replaces": 0, "document": DOCUMENT, "note": "why"}
        )
        assert (200, 1) == (first.status_code, first.json()["version"])
        client.put("/api/v1/attribution/rules", json={"replaces": 1, "document": {}})
        listed = client.get("/api/v1/attribution/versions").json()["rows"]
        assert [(2, ""), (1, "why")] == [(row["version"], row["note"]) for row in listed]
        assert "squad" == listed[1]["document"]["rules"][0]["id"]
        assert 2 == client.get("/api/v1/attribution/rules").json()["organisation"]["version"]


def test_two_editors_do_not_overwrite_each_other(api: Any, admin: str) -> None:
    with api.client(admin) as client:
        body = {"replaces": 0, "document": DOCUMENT}
        assert 200 == client.put("/api/v1/attribution/rules", json=body).status_code
        late = client.put("/api/v1/attribution/rules", json=body)
        assert (409, True) == (late.status_code, "version 1 is in force" in late.text)


RULE = {"id": "x", "dimension": "team", "attribute": "a"}


@pytest.mark.parametrize(
    ("document", "names"),
    [
        ({"shares": [{**SHARE, "teams": {}}]}, "shares[0].teams"),
        ({"rules": [{"id": "x", "dimension": "user", "attribute": "a"}]}, "rules[0].dimension"),
        ({"rulez": []}, "rulez"),
        ({"rules": [{**RULE, "field": "a"}]}, "Known: id, dimension, attribute, tag, values"),
        ({"rules": [{**RULE, "roles": ["boss"]}]}, "Known: client, proxy, engine, agent"),
        ({"rules": [{**RULE, "attribute": ""}]}, "rules[0].attribute"),
    ],
)
def test_a_wrong_document_changes_nothing(
    api: Any, admin: str, document: dict[str, object], names: str
) -> None:
    with api.client(admin) as client:
        answer = client.put("/api/v1/attribution/rules", json={"replaces": 0, "document": document})
        assert (400, True) == (answer.status_code, names in answer.text), answer.text
        assert [] == client.get("/api/v1/attribution/versions").json()["rows"]


def test_a_tenant_neither_reads_nor_writes_the_rules_of_all(api: Any, acme: str) -> None:
    with api.client(acme) as client:
        assert 403 == client.get("/api/v1/attribution/rules").status_code
        assert 403 == client.get("/api/v1/attribution/versions").status_code
        body = {"replaces": 0, "document": DOCUMENT}
        assert 403 == client.put("/api/v1/attribution/rules", json=body).status_code
