"""MLflow 3 tracing: every attribute is JSON, even texts; usage of embeddings in the outputs."""

from typing import Final

from controlplane.ingest.dialects.dialect import Blob, Dialect, Field
from controlplane.ingest.dialects.wire_usage import usage_paths, usage_totals
from controlplane.signals.vocabulary import Layer

MLFLOW: Final = Dialect(
    name="mlflow",
    layer=Layer.CLIENT,
    evidence="mlflow-skinny 3.17.2 on the wire",
    scenarios=("mlflow-openai",),
    scopes=("mlflow.*",),
    markers=("mlflow.",),
    keys={
        Field.PROVIDER: ("mlflow.llm.provider", "mlflow.message.format"),
        Field.OPERATION: ("mlflow.spanType",),
        Field.REQUEST_MODEL: ("model",),
        Field.RESPONSE_MODEL: ("mlflow.llm.model",),
        Field.IS_STREAM: ("stream",),
    },
    blobs=(
        Blob(
            key="mlflow.spanOutputs",
            paths=(
                (Field.RESPONSE_ID, ("id",)),
                (Field.RESPONSE_MODEL, ("model",)),
                *usage_paths("usage"),
            ),
            totals=usage_totals("usage"),
        ),
        Blob(
            key="mlflow.chat.tokenUsage",
            paths=(
                (Field.INPUT_TOKENS, ("input_tokens",)),
                (Field.OUTPUT_TOKENS, ("output_tokens",)),
                (Field.CACHED_INPUT_TOKENS, ("cache_read_input_tokens",)),
                (Field.CACHE_CREATION_INPUT_TOKENS, ("cache_creation_input_tokens",)),
            ),
        ),
        Blob(
            key="mlflow.spanInputs",
            paths=((Field.REQUEST_MODEL, ("model",)), (Field.IS_STREAM, ("stream",))),
        ),
    ),
    first_token_events=("mlflow.chunk.item.0",),
    json_quoted=True,
)
