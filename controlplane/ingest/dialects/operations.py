"""What producers call an operation, and whether a span of it is a call that may bill."""

from typing import Final

from controlplane.signals.vocabulary import ReportKind

_CALLS: Final = {
    # canonical gen_ai.operation.name: other spellings, lowercase
    "chat": (
        "llm",
        "completion",
        "acompletion",
        "anthropic_messages",
        "responses",
        "aresponses",
        "generation",
        "chat_model",
        "call_llm",
        "ai.generatetext.dogenerate",
        "ai.streamtext.dostream",
        "ai.generateobject.dogenerate",
        "ai.streamobject.dostream",
    ),
    "text_completion": ("atext_completion",),
    "generate_content": ("agenerate_content",),
    "embeddings": ("embedding", "aembedding", "ai.embed.doembed", "ai.embedmany.doembed"),
    "rerank": ("arerank", "reranker"),
    "image_generation": ("aimage_generation",),
    "transcription": ("atranscription",),
    "speech": ("aspeech",),
    "moderation": ("amoderation",),
}
_AGGREGATES: Final = frozenset(
    {
        "agent",
        "agent_run",
        "agent_step",
        "ai.embed",
        "ai.embedmany",
        "ai.generateobject",
        "ai.generatetext",
        "ai.streamobject",
        "ai.streamtext",
        "ai.toolcall",
        "chain",
        "create_agent",
        "evaluator",
        "event",
        "execute_event_loop_cycle",
        "execute_task",
        "execute_tool",
        "guardrail",
        "invocation",
        "invoke_agent",
        "invoke_workflow",
        "parser",
        "prompt",
        "retriever",
        "span",
        "step",
        "task",
        "tool",
        "unknown",
        "workflow",
    }
)
_CANONICAL: Final = {
    spelling: name for name, others in _CALLS.items() for spelling in (name, *others)
}
INPUT_ONLY: Final = frozenset({"embeddings", "rerank", "moderation"})
"""Operations whose model writes nothing, so that a missing output count is zero."""


def canonical_operation(text: str) -> str:
    """Answer the gen_ai.operation.name of a producer's spelling; an unknown one as it is."""
    lowered = text.strip().lower()
    return _CANONICAL.get(lowered, lowered)


def kind_of_operation(operation: str) -> ReportKind | None:
    """Answer what a span of a canonical operation is; None where the name is not known."""
    if operation in _CALLS:
        return ReportKind.CALL
    return ReportKind.AGGREGATE if operation in _AGGREGATES else None
