"""HTTP clients' own spans: the last trace of a call whose SDK nobody instruments.

Only a request to an inference API is a call, told by its path; it has no usage. Under an
instrumentor's span it is the same call once more, and each retry is one of its own.
"""

from typing import Final

from controlplane.ingest.dialects.dialect import Dialect, Field
from controlplane.signals.vocabulary import Layer, ReportKind

_URLS: Final = ("url.full", "http.url", "url.path", "http.target")

HTTP_CLIENT: Final = Dialect(
    name="http-client",
    layer=Layer.CLIENT,
    evidence="open-telemetry/semantic-conventions: docs/http/http-spans.md; wire (httpx, undici)",
    scopes=(
        "opentelemetry.instrumentation.aiohttp_client",
        "opentelemetry.instrumentation.httpx",
        "opentelemetry.instrumentation.requests",
        "opentelemetry.instrumentation.urllib",
        "opentelemetry.instrumentation.urllib3",
        "@opentelemetry/instrumentation-http",
        "@opentelemetry/instrumentation-undici",
    ),
    keys={
        Field.PROVIDER: ("url.full", "http.url"),
        Field.OPERATION: _URLS,
        Field.ERROR_TYPE: ("error.type", "exception.type"),
        Field.HTTP_STATUS: ("http.response.status_code", "http.status_code"),
    },
    call_kind="client",
    kind_of_usage=ReportKind.NONE,
)
