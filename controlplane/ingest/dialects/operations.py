"""What producers call an operation, and whether a span of it is a call that may bill."""

import re
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
        "chat.completions",
        "converse",
        "converse_stream",
        "message",
        "messages",
        "ai.generatetext.dogenerate",
        "ai.streamtext.dostream",
        "ai.generateobject.dogenerate",
        "ai.streamobject.dostream",
    ),
    "text_completion": ("atext_completion",),
    "generate_content": (
        "agenerate_content",
        "agenerate_content_stream",
        "generate_content_stream",
    ),
    "embeddings": (
        "embedding",
        "embed",
        "aembedding",
        "ai.embed.doembed",
        "ai.embedmany.doembed",
        "embed_content",
    ),
    "rerank": ("arerank", "reranker", "ai.rerank.dorerank"),
    "image_generation": (
        "aimage_generation",
        "image",
        "image_edit",
        "image_variation",
        "images.generate",
    ),
    "transcription": ("atranscription", "audio_transcription", "translation"),
    "speech": ("aspeech", "audio", "audio_speech", "text_to_speech"),
    "moderation": ("amoderation",),
}
_AGGREGATES: Final = frozenset(
    {
        "agent",
        "agent_run",
        "agent_step",
        "ai.embed",
        "ai.embedmany",
        "ai.rerank",
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
        "fetch_response",  # of a call that was made before
        "guardrail",
        "invocation",
        "invoke_agent",
        "invoke_workflow",
        "parser",
        "plan",
        "prompt",
        "retrieval",
        "retriever",
        "span",
        "step",
        "task",
        "tool",
        "unknown",
        "workflow",
    }
)
_PARTS_OF_AGGREGATES: Final = frozenset(
    {
        *("agent", "agents", "chain", "crew", "graph", "handoff", "memory", "pipeline", "step"),
        *("task", "tool", "tools", "workflow"),
    }
)
"""Words in the name of an operation that nobody wrote down: what is named so calls models, if any."""
_WORD: Final = re.compile(r"[a-z]+")
_CANONICAL: Final = {
    spelling: name for name, others in _CALLS.items() for spelling in (name, *others)
}
INPUT_ONLY: Final = frozenset({"embeddings", "rerank", "moderation"})
"""Operations whose model writes nothing, so that a missing output count is zero."""
ECHOED_MODEL: Final = frozenset({"embeddings"})
"""Operations whose models have one name: a response that names none came from what was asked."""
_STREAMED: Final = frozenset(
    {
        "agenerate_content_stream",
        "ai.streamobject",
        "ai.streamobject.dostream",
        "ai.streamtext",
        "ai.streamtext.dostream",
        "converse_stream",
        "generate_content_stream",
    }
)
_PATHS: Final = (
    # The path of an inference API, as its providers and those who speak like them have it.
    (re.compile(r"/chat/completions$|/v1/messages$|/responses$|/api/chat$"), "chat"),
    (re.compile(r"/model/[^/]+/(converse|invoke)(-stream|-with-response-stream)?$"), "chat"),
    (re.compile(r"/completions$|/api/generate$"), "text_completion"),
    (re.compile(r":(streamG|g)enerateContent$"), "generate_content"),
    (re.compile(r"/embeddings$|/api/embed$|:(batchEmbedContents|embedContent)$"), "embeddings"),
    (re.compile(r"/(v[0-9]+/)?rerank$"), "rerank"),
    (re.compile(r"/images/(generations|edits|variations)$"), "image_generation"),
    (re.compile(r"/audio/(transcriptions|translations)$"), "transcription"),
    (re.compile(r"/audio/speech$"), "speech"),
    (re.compile(r"/moderations$"), "moderation"),
)
_MAX_URL_CHARS: Final = 2048


def canonical_operation(text: str) -> str | None:
    """Answer the gen_ai.operation.name of a producer's spelling; an unknown one as it is.

    A URL is the operation of its path, or None.
    """
    lowered = text.strip().lower()
    if "/" in lowered:
        return _operation_of_url(text.strip())
    return _CANONICAL.get(lowered, lowered) or None


def _operation_of_url(url: str) -> str | None:
    path = re.split(r"[?#]", url[:_MAX_URL_CHARS], maxsplit=1)[0].rstrip("/")
    return next((name for pattern, name in _PATHS if pattern.search(path)), None)


_CHUNKS: Final = frozenset(
    {
        *("aimessagechunk", "chatgenerationchunk", "generationchunk"),
        *("conversestream", "invokemodelwithresponsestream"),
    }
)
"""LangChain's classes of what a stream was put together from, Bedrock's methods that stream."""


def is_chunk(text: str) -> bool:
    """Whether a class of an answer, or the method that was called, is one that only streams have."""
    return text.strip().lower() in _CHUNKS


def is_streamed(text: str) -> bool | None:
    """Whether an operation's spelling says that the answer is a stream; None where it does not."""
    return True if text.strip().lower() in _STREAMED else None


def split_name(name: str) -> tuple[str, str] | None:
    """Read a span's name as `{operation} {model}`, the official form; None if it is not."""
    operation, _, model = name.partition(" ")
    known = _CANONICAL.get(operation.lower())
    return (known, model.strip()) if known and model.strip() else None


def kind_of_operation(operation: str) -> ReportKind | None:
    """Answer what a span of a canonical operation is; None where the name is not known."""
    if operation in _CALLS:
        return ReportKind.CALL
    is_made_of_calls = not _PARTS_OF_AGGREGATES.isdisjoint(_WORD.findall(operation))
    return ReportKind.AGGREGATE if operation in _AGGREGATES or is_made_of_calls else None
