"""Who pays: the key's tenant, the rules' order, and what decided."""

import json

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.attribution.attribute import attribute, refused_claims
from controlplane.attribution.rules import (
    BUILT_IN,
    DIMENSIONS,
    AttributionRules,
    Rule,
    RulesDocument,
    compile_rules,
    with_organisation,
)
from controlplane.core.errors import ConfigError
from controlplane.signals.schema import ATTRIBUTED_SCHEMA, NORMALIZED_SCHEMA
from controlplane.signals.sender import Sender, TenantMap
from controlplane.signals.vocabulary import KeyRole

PLAIN = {"": Sender()}
Row = tuple[str, dict[str, str]]


def _spans(rows: list[Row], role: KeyRole = KeyRole.UNKNOWN) -> pa.Table:
    """Rows of (key id, attributes); every other column is NULL or empty of its type."""
    columns = {field.name: pa.array([None] * len(rows), field.type) for field in NORMALIZED_SCHEMA}
    columns["key_id"] = pa.array([key for key, _ in rows], pa.string())
    columns["key_role"] = pa.array([role.value] * len(rows), pa.string())
    columns["attributes"] = pa.array(
        [list(attributes.items()) for _, attributes in rows],
        NORMALIZED_SCHEMA.field("attributes").type,
    )
    return pa.table(columns)


def _by_hand(
    attributes: dict[str, str], rules: AttributionRules
) -> tuple[dict[str, str | None], dict[str, str]]:
    """The specification, one row at a time."""
    values: dict[str, str | None] = dict.fromkeys(DIMENSIONS)
    by = {"tenant": "key"}
    for dimension in DIMENSIONS:
        for rule in rules.rules:
            text = attributes.get(rule.attribute)
            if text and rule.tag:
                listed = json.loads(text) if text.startswith("[") else text.split(",")
                split = [tag.strip().partition(":") for tag in listed]
                named = [value.strip() for name, _, value in split if name == rule.tag]
                text = next(filter(None, named), None)
            if rule.dimension == dimension and text:
                values[dimension] = rule.values.get(text, text)
                by[dimension] = rule.id
                break
    return values, by


ATTRIBUTES = st.dictionaries(
    st.sampled_from([*(rule.attribute for rule in BUILT_IN.rules), "other"]),
    st.sampled_from(
        ["", "a", "b", "é", "team:x, feature:y", '["feature:z", "team:t:u"]', "team:,customer: c"]
    ),
    max_size=8,
)


@given(st.lists(ATTRIBUTES, max_size=12), st.integers(0, 3))
def test_columns_equal_the_rules_read_row_by_row(rows: list[dict[str, str]], skip: int) -> None:
    """The vectorised stage is the plain reading of the rules, sliced tables included."""
    rules = with_organisation(
        [{"id": "own", "dimension": "team", "attribute": "other", "values": {"a": "search"}}]
    )
    skip = min(skip, len(rows))
    table = attribute(_spans([("", row) for row in rows]).slice(skip), rules, senders=PLAIN)
    assert ATTRIBUTED_SCHEMA.names == table.column_names
    for got, attributes in zip(table.to_pylist(), rows[skip:], strict=True):
        values, by = _by_hand(attributes, rules)
        assert values == {dimension: got[dimension] for dimension in DIMENSIONS}
        assert by == msgspec.json.decode(got["attributed_by"])


def _tenants(sender: Sender, *attributes: dict[str, str]) -> list[str]:
    rows = [(sender.key_id, row) for row in attributes]
    table = attribute(_spans(rows), BUILT_IN, senders={sender.key_id: sender})
    return [str(tenant) for tenant in table["tenant"].to_pylist()]


def test_a_proxy_key_maps_an_attribute_to_tenants() -> None:
    """What the map does not name stays with the key's own tenant."""
    sender = Sender(
        tenant="platform",
        key_id="k1",
        key_role=KeyRole.PROXY,
        tenant_map=TenantMap("end_user", {"u1": "acme", "u2": "globex"}),
    )
    rows: list[dict[str, str]] = [{"end_user": "u1"}, {"end_user": "u2"}, {"end_user": "u3"}, {}]
    assert ["acme", "globex", "platform", "platform"] == _tenants(sender, *rows)


def test_a_map_without_tenants_takes_the_value_itself() -> None:
    """The attribute is the tenant."""
    sender = Sender(key_id="k1", key_role=KeyRole.ENGINE, tenant_map=TenantMap("end_user"))
    assert ["acme", "default"] == _tenants(sender, {"end_user": "acme"}, {"end_user": ""})


@pytest.mark.parametrize("role", [KeyRole.CLIENT, KeyRole.AGENT, KeyRole.UNKNOWN])
def test_a_client_can_not_choose_its_tenant(role: KeyRole) -> None:
    """Even a key that carries a map by mistake: the role decides (algorithms C4)."""
    sender = Sender(tenant="mine", key_id="k1", key_role=role, tenant_map=TenantMap("tenant.id"))
    assert ["mine"] == _tenants(sender, {"tenant.id": "victim"})


def test_two_keys_in_one_batch_keep_their_own_maps() -> None:
    """A map applies to its key's rows only."""
    proxy = Sender(tenant="p", key_id="k1", key_role=KeyRole.PROXY, tenant_map=TenantMap("t"))
    client = Sender(tenant="c", key_id="k2", key_role=KeyRole.CLIENT)
    rows: list[Row] = [("k2", {"t": "x"}), ("k1", {"t": "x"})]
    table = attribute(_spans(rows), BUILT_IN, senders={"k1": proxy, "k2": client})
    assert ["c", "x"] == table["tenant"].to_pylist()
    by = [msgspec.json.decode(str(text))["tenant"] for text in table["attributed_by"].to_pylist()]
    assert ["key", "tenant_map"] == by


def test_a_rule_for_one_role_ignores_the_others() -> None:
    """A proxy's word about the team; a client's is not asked."""
    rules = AttributionRules(
        (Rule(id="proxy-team", dimension="team", attribute="t", roles=(KeyRole.PROXY,)),)
    )
    for role, expected in ((KeyRole.PROXY, "x"), (KeyRole.CLIENT, None)):
        table = attribute(_spans([("", {"t": "x"})], role), rules, senders=PLAIN)
        assert [expected] == table["team"].to_pylist()


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        (
            {"team.id": "t-self", "metadata.user_api_key_team_alias": "search"},
            {"team": "search"},  # the gateway's word before the program's
        ),
        (
            {"metadata.user_api_key_team_alias": "", "metadata.user_api_key_team_id": "t-1"},
            {"team": "t-1"},  # LiteLLM says '' where it has nothing
        ),
        (
            {"litellm.metadata.user_api_key_alias": "ci", "litellm.api_key.hash": "9f"},
            {"api_key": "ci"},
        ),
        ({"metadata.user_api_key_end_user_id": "u-1"}, {"user_id": "u-1"}),
        (
            {"langfuse.trace.tags": '["team:search", "feature:summarise"]'},
            {"team": "search", "feature": "summarise"},
        ),
        (
            {"langsmith.span.tags": "seq:step:1, feature:rag", "gen_ai.agent.name": "bot"},
            {"feature": "rag"},  # a tag is meant, an agent's name is a guess
        ),
        ({"gen_ai.agent.name": "bot"}, {"feature": "bot"}),
        ({"deployment.environment": "lab"}, {"environment": "lab"}),
    ],
)
def test_what_producers_say_is_found(attributes: dict[str, str], expected: dict[str, str]) -> None:
    """The built-in rules on attributes as recorded from producers."""
    row = attribute(_spans([("", attributes)]), BUILT_IN, senders=PLAIN).to_pylist()[0]
    assert expected == {name: row[name] for name in DIMENSIONS if row[name] is not None}


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ([{"id": "a", "dimension": "colour", "attribute": "x"}], "'colour'. Known: team"),
        ([{"id": "a", "dimension": "team"}], "attribute"),
        ([{"id": "a", "dimension": "team", "attribute": "x", "regex": "y"}], "regex"),
        ([{"id": "a", "dimension": "team", "attribute": "x"}] * 2, "id 'a' twice"),
        (
            [{"id": str(i), "dimension": "team", "attribute": str(i)} for i in range(101)],
            "over 100",
        ),
    ],
)
def test_a_wrong_rule_is_refused(own: list[object], words: str) -> None:
    """Bad configuration refuses to start and names what is wrong."""
    with pytest.raises(ConfigError, match=words):
        with_organisation(own)


CLIENT = Sender(tenant="acme", key_id="k1", key_role=KeyRole.CLIENT)
RESERVED = [{"id": "hq", "dimension": "team", "values": ["finance", "exec-*"], "tenants": ["hq"]}]


def _attributed(
    sender: Sender, rules: AttributionRules, *attributes: dict[str, str]
) -> list[dict[str, object]]:
    spans = _spans([(sender.key_id, row) for row in attributes])
    return attribute(spans, rules, senders={sender.key_id: sender}).to_pylist()


@pytest.mark.parametrize(
    ("sender", "teams"),
    [
        (CLIENT, [None, None, "search"]),
        (
            Sender(tenant="hq", key_id="k1", key_role=KeyRole.CLIENT),
            ["finance", "exec-1", "search"],
        ),
        (
            Sender(tenant="acme", key_id="k1", key_role=KeyRole.PROXY),
            ["finance", "exec-1", "search"],
        ),
        (Sender(tenant="acme", key_id="k1"), [None, None, "search"]),
    ],
)
def test_a_reserved_value_is_only_for_those_it_is_reserved_for(
    sender: Sender, teams: list[str | None]
) -> None:
    """A proxy is trusted; of the others only the named tenants may claim it."""
    rules = with_organisation({"reserved": RESERVED})
    rows = _attributed(
        sender, rules, {"team.id": "finance"}, {"team.id": "exec-1"}, {"team.id": "search"}
    )
    assert teams == [row["team"] for row in rows]


def test_a_refused_claim_says_why_and_is_counted() -> None:
    rules = with_organisation({"reserved": RESERVED})
    spans = _spans([("k1", {"team.id": "finance"}), ("k1", {"team.id": "x"}), ("k1", {})])
    table = attribute(spans, rules, senders={"k1": CLIENT})
    told = [msgspec.json.decode(str(text)) for text in table["attributed_by"].to_pylist()]
    assert ["refused:hq", "default:team.id", None] == [by.get("team") for by in told]
    assert {"hq": 1} == refused_claims(table)
    assert {} == refused_claims(table.slice(1))


def test_what_an_admin_wrote_on_the_key_stands_whatever_is_sent() -> None:
    sender = msgspec.structs.replace(CLIENT, dimensions={"team": "ads", "environment": "prod"})
    (row,) = _attributed(sender, BUILT_IN, {"team.id": "search", "deployment.environment": "dev"})
    assert ("ads", "prod") == (row["team"], row["environment"])
    by = msgspec.json.decode(str(row["attributed_by"]))
    assert ("key", "key") == (by["team"], by["environment"])


SHARES = [
    {"id": "bots", "dimension": "user_id", "values": ["bot-*"], "teams": {"search": 3, "ads": 1}}
]


def test_calls_of_a_shared_account_go_to_its_pool() -> None:
    """Unless the key says whose they are."""
    rules = with_organisation({"shares": SHARES})
    calls: list[dict[str, str]] = [{"user.id": "bot-1", "team.id": "x"}, {"user.id": "ann"}]
    rows = _attributed(CLIENT, rules, *calls)
    assert ["shared:bots[ads=1,search=3]", None] == [row["team"] for row in rows]
    assert "share:bots" == msgspec.json.decode(str(rows[0]["attributed_by"]))["team"]
    fixed = msgspec.structs.replace(CLIENT, dimensions={"team": "ads"})
    assert ["ads", "ads"] == [row["team"] for row in _attributed(fixed, rules, *calls)]


@pytest.mark.parametrize("role", [KeyRole.CLIENT, KeyRole.PROXY])
def test_nobody_can_send_the_name_of_a_pool(role: KeyRole) -> None:
    """It would charge teams that share nothing."""
    sender = msgspec.structs.replace(CLIENT, key_role=role)
    (row,) = _attributed(sender, BUILT_IN, {"team.id": "shared:x[victim=1]"})
    assert row["team"] is None
    assert "refused:pool_name" == msgspec.json.decode(str(row["attributed_by"]))["team"]


RULE = {"id": "a", "dimension": "team", "attribute": "squad"}


@pytest.mark.parametrize(
    ("document", "names"),
    [
        ({"rules": [{"id": "a", "dimension": "teem", "attribute": "x"}]}, "rules\\[0\\].dimension"),
        ({"reserved": [{"id": "a", "dimension": "team", "values": ["x"], "who": 1}]}, "who"),
        ({"reserved": [*RESERVED, *RESERVED]}, "reserved\\[0\\].id"),
        ({"shares": [{**SHARES[0], "dimension": "team"}]}, "shares\\[0\\].dimension"),
        ({"shares": [{**SHARES[0], "teams": {}}]}, "shares\\[0\\].teams"),
        ({"shares": [{**SHARES[0], "teams": {"a": 0}}]}, "shares\\[0\\].teams"),
        ({"shares": [{**SHARES[0], "teams": {"a,b": 1}}]}, "shares\\[0\\]"),
        ({"shares": [{**SHARES[0], "id": "a b"}]}, "shares\\[0\\]"),
        ({"rules": [{"id": "a", "dimension": "team", "attribute": ""}]}, "rules\\[0\\].attribute"),
        ({"rules": [{**RULE, "tag": ""}]}, "rules\\[0\\].tag"),
        ({"rules": [{**RULE, "values": {"s1": ""}}]}, "rules\\[0\\].values"),
        ({"rules": [{**RULE, "values": {"s1": "shared:x[a=1]"}}]}, "rules\\[0\\].values"),
        ({"reserved": [{**RESERVED[0], "values": []}]}, "reserved\\[0\\].values"),
        ({"reserved": [{**RESERVED[0], "values": ["*-hq"]}]}, "reserved\\[0\\].values.*last \\*"),
        ({"shares": [{**SHARES[0], "values": [""]}]}, "shares\\[0\\].values"),
        ({"rule": []}, "rule"),
        ("text", "object"),
    ],
)
def test_a_wrong_document_is_refused_by_name(document: object, names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        with_organisation(document)


def test_a_version_from_before_a_check_stays_in_force() -> None:
    """A collector that refused what it had accepted would attribute nothing."""
    mapped = Rule(id="a", dimension="team", attribute="squad", values={"s1": ""})
    assert mapped == compile_rules(RulesDocument(rules=(mapped,))).rules[0]


def test_a_rule_says_which_attributes_must_be_kept() -> None:
    rules = with_organisation([{"id": "own", "dimension": "team", "attribute": "squad"}])
    assert {"squad", "team.id", "user.id"} <= rules.attributes
