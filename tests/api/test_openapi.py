"""The OpenAPI document says what is true: scopes, statuses, parameters."""

from typing import Any

from controlplane.api.services import Services
from controlplane.auth.roles import Scope
from controlplane.usage.dimensions import BY_NAME


def operations(schema: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
        if method in {"get", "post", "put", "patch", "delete"}
    ]


def test_document_is_served_and_names_a_scope_for_every_closed_operation(api: Any) -> None:
    with api.client() as client:
        answer = client.get("/api/v1/openapi.json")
    assert answer.status_code == 200
    found = operations(answer.json())
    assert len(found) >= 13
    for path, method, operation in found:
        security = operation["security"]
        statuses = set(operation["responses"])
        assert {"400", "500"} <= statuses, (path, method)
        closed = security != [{}]
        assert closed == ("403" in statuses), (path, method)
        if closed:
            assert {"401", "403", "429", "503"} <= statuses, (path, method)
            (scope,) = security[0]["bearer"]
            assert scope in {each.value for each in Scope}
        assert operation["summary"], (path, method)
        assert operation["description"], (path, method)


def test_refusals_are_documented_as_problems(api: Any) -> None:
    for path, method, operation in operations(api.schema):
        for status, response in operation["responses"].items():
            ready = path == "/health/ready" and status == "503"
            if int(status) >= 400 and not ready:
                assert ["application/problem+json"] == list(response["content"]), (path, method)


def test_no_path_parameter_is_undocumented_and_parameters_have_words(api: Any) -> None:
    for path, _, operation in operations(api.schema):
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "query":
                assert parameter["description"], (path, parameter["name"])


def test_version_lists_the_closed_sets(api: Any, services: Services) -> None:
    with api.client() as client:
        body = client.get("/api/v1/version").json()
    assert body["dimensions"] == list(BY_NAME)
    assert "mtd" in body["ranges"]
    assert body["zone"] == "UTC"
    assert services.version == body["version"]


def test_metrics_hold_ours_and_the_callers_usage_only(api: Any, keys: Any) -> None:
    key = keys.add("acme", scopes=frozenset({Scope.METRICS_READ}))
    with api.client(key) as client:
        text = client.get("/metrics").text
        openmetrics = client.get("/metrics", headers={"accept": "application/openmetrics-text"})
    lines = text.splitlines()
    # Six calls of acme: five of gpt-4o (20 input of which 5 cached, 10 output each), one unpriced.
    assert 'ai_tokens_total{endpoint="chat",model="gpt-4o",type="input"} 75.0' in lines
    assert 'ai_tokens_total{endpoint="chat",model="gpt-4o",type="cached"} 25.0' in lines
    assert 'ai_tokens_total{endpoint="chat",model="gpt-4o",type="output"} 50.0' in lines
    assert 'ai_cost_usd_total{endpoint="chat",model="gpt-4o"} 7.500000005' in lines
    assert 'ai_unpriced_calls_total{endpoint="chat",model="mystery-1"} 1.0' in lines
    assert 'ai_llm_latency_seconds_bucket{endpoint="chat",le="0.25",model="gpt-4o"} 5.0' in lines
    assert 'ai_llm_latency_seconds_bucket{endpoint="chat",le="0.1",model="gpt-4o"} 0.0' in lines
    assert 'ai_llm_latency_seconds_sum{endpoint="chat",model="gpt-4o"} 1.0' in lines
    assert any(line.startswith("# HELP controlplane_api_refused_total") for line in lines)
    assert openmetrics.text.endswith("# EOF\n")
    assert openmetrics.text.count("# EOF") == 1
