"""MLflow 3.17 tracing: every attribute is JSON, even texts; usage of embeddings in the outputs."""

from typing import Final

from controlplane.ingest.dialects.dialect import Blob, Dialect, Field
from controlplane.signals.vocabulary import Layer

MLFLOW: Final = Dialect(
    name="mlflow",
    layer=Layer.CLIENT,
    scopes=("mlflow.*",),
    markers=("mlflow.",),
    keys={
        Field.PROVIDER: ("mlflow.llm.provider",),
        Field.OPERATION: ("mlflow.spanType",),
        Field.REQUEST_MODEL: ("model",),
        Field.RESPONSE_MODEL: ("mlflow.llm.model",),
    },
    blobs=(
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
            key="mlflow.spanOutputs",
            paths=(
                (Field.RESPONSE_ID, ("id",)),
                (Field.RESPONSE_MODEL, ("model",)),
                (Field.INPUT_TOKENS, ("usage", "prompt_tokens")),
                (Field.OUTPUT_TOKENS, ("usage", "completion_tokens")),
                (
                    Field.REASONING_TOKENS,
                    ("usage", "completion_tokens_details", "reasoning_tokens"),
                ),
                (Field.REASONING_TOKENS, ("usage", "output_tokens_details", "reasoning_tokens")),
            ),
        ),
    ),
    json_quoted=True,
)
