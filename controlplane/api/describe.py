"""What Litestar can not see from a signature, put into the OpenAPI document."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from litestar.openapi.spec import (
    OpenAPIMediaType,
    OpenAPIResponse,
    Operation,
    Parameter,
    RequestBody,
    Schema,
)
from litestar.openapi.spec.enums import OpenAPIType

from controlplane.api.params import FILTER_PREFIX, UNATTRIBUTED, Param
from controlplane.api.tables import ARROW

_OBJECT: Final = Schema(type=OpenAPIType.OBJECT)
_TEXT: Final = Schema(type=OpenAPIType.STRING)
_BYTES: Final = Schema(type=OpenAPIType.STRING, content_media_type="application/octet-stream")
TABLE: Final[dict[str, Schema]] = {
    "application/json": Schema(
        type=OpenAPIType.OBJECT,
        required=["columns", "rows", "meta"],
        properties={
            "columns": Schema(type=OpenAPIType.ARRAY, items=_TEXT),
            "rows": Schema(type=OpenAPIType.ARRAY, items=_OBJECT),
            "meta": _OBJECT,
        },
    ),
    ARROW: _BYTES,
}
"""Both forms of a table."""
PROMETHEUS: Final[dict[str, Schema]] = {
    "text/plain": _TEXT,
    "application/openmetrics-text": _TEXT,
}
RULES: Final[dict[str, Schema]] = {"application/json": _OBJECT, "application/yaml": _TEXT}
"""`policy.rules.PolicyRules`, in either language."""
BINARY: Final[dict[str, Schema]] = {"application/octet-stream": _BYTES}


def documented(
    params: Sequence[Param] = (),
    *,
    filtered: bool = False,
    answer: dict[str, Schema] | None = None,
    body: dict[str, Schema] | None = None,
) -> type[Operation]:
    """Return an operation class that lists the parameters, and the forms of a 200 and a body."""
    listed = [_to_openapi(param) for param in params]
    if filtered:
        about = f"Keep rows with this value of a dimension; `{UNATTRIBUTED}` for none"
        listed.append(_to_openapi(Param(FILTER_PREFIX + "{dimension}", about, repeats=True)))

    @dataclass
    class Documented(Operation):
        takes_parameters = bool(listed)  # guards.refuse_parameters reads it

        def __post_init__(self) -> None:
            self.parameters = [*(self.parameters or []), *listed]
            if body is not None:
                self.request_body = RequestBody(content=_content(body), required=True)
            success = (self.responses or {}).get("200")
            if answer is not None and isinstance(success, OpenAPIResponse):
                success.content = _content(answer)

    return Documented


def _content(forms: dict[str, Schema]) -> dict[str, OpenAPIMediaType]:
    return {kind: OpenAPIMediaType(schema=schema) for kind, schema in forms.items()}


def _to_openapi(param: Param) -> Parameter:
    plain = Schema(
        type=OpenAPIType.INTEGER if param.integer else OpenAPIType.STRING,
        enum=list(param.choices) or None,
    )
    return Parameter(
        name=param.name,
        param_in="query",
        description=param.about,
        required=False,
        schema=Schema(type=OpenAPIType.ARRAY, items=plain) if param.repeats else plain,
        example=param.example or None,
    )
