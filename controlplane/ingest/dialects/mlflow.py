"""MLflow 3 tracing: every attribute is JSON, even texts; usage of embeddings in the outputs."""

from typing import Final

from controlplane.ingest.dialects.dialect import Blob, Dialect, Field
from controlplane.ingest.dialects.wire_usage import usage_paths, usage_totals
from controlplane.signals.vocabulary import Layer, ReportKind

MLFLOW: Final = Dialect(
    name="mlflow",
    layer=Layer.CLIENT,
    evidence="mlflow-skinny 3.17.2 on the wire",
    scenarios=("mlflow-openai", "mlflow-others"),
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
            overrides=True,
            paths=(
                (Field.RESPONSE_ID, ("id",)),
                (Field.RESPONSE_MODEL, ("model",)),
                *usage_paths("usage"),
                *usage_paths("usage_metadata"),
            ),
            totals=(*usage_totals("usage"), *usage_totals("usage_metadata")),
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
    kinds_by_name={
        # The inside of google-genai's public method, traced once more with the same usage.
        "Models._generate_content*": ReportKind.NONE,
        "AsyncModels._generate_content*": ReportKind.NONE,
    },
    first_token_events=("mlflow.chunk.item.0",),
    json_quoted=True,
)
