"""Amazon Bedrock, where its client is instrumented: usage as the API has it, copied.

Bedrock's input leaves cache reads and writes out; who copies its numbers leaves them out, too. The
API answers with no model of its own.
"""

from typing import Final

from controlplane.ingest.dialects.dialect import Dialect, Field
from controlplane.ingest.dialects.openinference import (
    FIRST_TOKEN,
    OPENINFERENCE_BLOBS,
    REQUESTED_MODEL_KEYS,
)
from controlplane.ingest.dialects.openllmetry import OPENLLMETRY
from controlplane.ingest.dialects.otel_genai import OTEL_KEYS, STREAM_KEYS
from controlplane.signals.vocabulary import Layer

BOTOCORE: Final = Dialect(
    name="otel-bedrock",
    layer=Layer.CLIENT,
    evidence="opentelemetry-instrumentation-botocore 0.66b2 on the wire",
    scopes=("opentelemetry.instrumentation.botocore*", "@opentelemetry/instrumentation-aws-sdk"),
    requires="gen_ai.system",
    keys={**OTEL_KEYS, Field.STREAM_MARK: ("rpc.method",)},
    input_excludes_cache=True,
    operation_in_name=True,
    stream_keys=STREAM_KEYS,
)
OPENLLMETRY_BEDROCK: Final = Dialect(
    # It drops the vendor from the model's id, also where the response names none.
    name=OPENLLMETRY.name,
    layer=Layer.CLIENT,
    evidence="opentelemetry-instrumentation-bedrock 0.62.4 on the wire",
    scopes=("opentelemetry.instrumentation.bedrock",),
    keys=OPENLLMETRY.keys,
    provider="aws.bedrock",
    input_excludes_cache=True,
    stream_keys=STREAM_KEYS,
)
OPENINFERENCE_BEDROCK: Final = Dialect(
    # It adds the cache to the input; its model is the one that was asked for.
    name="openinference",
    layer=Layer.CLIENT,
    evidence="openinference-instrumentation-bedrock 0.1.61 on the wire",
    scopes=("openinference.instrumentation.bedrock",),
    keys=REQUESTED_MODEL_KEYS,
    blobs=OPENINFERENCE_BLOBS,
    provider="aws.bedrock",
    stream_names=("bedrock.converse_stream", "bedrock.invoke_model_with_response_stream"),
    first_token_events=FIRST_TOKEN,
)
