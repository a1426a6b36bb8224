"""Which span events, log records and spans say something about a call, and by which keys.

Evaluation names are OpenTelemetry's (semantic-conventions-genai, `gen_ai.evaluation.result`).
There is no convention for guardrails and feedback yet: the spellings of LiteLLM's guardrail span
(litellm/integrations/opentelemetry.py) and the proposed `gen_ai.guardrail.*` are read.
Explanations and guardrail responses hold content and are not read.
"""

from typing import Final

import msgspec

from controlplane.signals.samples import EventKind, GuardrailAction


class EventShape(msgspec.Struct, frozen=True, kw_only=True):
    """Names that start with `prefix` are events of `kind`; of each key list the first that is set."""

    kind: EventKind
    prefix: str
    name_keys: tuple[str, ...]
    score_keys: tuple[str, ...] = ()
    label_keys: tuple[str, ...] = ()
    action_keys: tuple[str, ...] = ()


SHAPES: Final = (
    EventShape(
        kind=EventKind.EVALUATION,
        prefix="gen_ai.evaluation",
        name_keys=("gen_ai.evaluation.name", "gen_ai.evaluation.metric.name"),
        score_keys=("gen_ai.evaluation.score.value", "gen_ai.evaluation.score"),
        label_keys=("gen_ai.evaluation.score.label", "gen_ai.evaluation.label"),
    ),
    EventShape(
        kind=EventKind.FEEDBACK,
        prefix="gen_ai.feedback",
        name_keys=("gen_ai.feedback.name",),
        score_keys=("gen_ai.feedback.score.value", "gen_ai.feedback.score"),
        label_keys=("gen_ai.feedback.score.label", "gen_ai.feedback.label"),
    ),
    EventShape(
        kind=EventKind.FEEDBACK,
        prefix="user.feedback",
        name_keys=("user.feedback.name", "feedback.name"),
        score_keys=("user.feedback.score", "feedback.score"),
        label_keys=("user.feedback.label", "feedback.label"),
    ),
    EventShape(
        kind=EventKind.GUARDRAIL,
        prefix="gen_ai.guardrail",
        name_keys=("gen_ai.guardrail.name",),
        score_keys=("gen_ai.guardrail.score",),
        label_keys=("gen_ai.guardrail.category", "gen_ai.guardrail.type"),
        action_keys=("gen_ai.guardrail.action", "gen_ai.guardrail.decision"),
    ),
    EventShape(
        kind=EventKind.GUARDRAIL,
        prefix="guardrail",
        name_keys=("guardrail.name", "guardrail_name", "openinference.guardrail.name"),
        score_keys=("guardrail.score",),
        label_keys=("guardrail.category", "guardrail_mode"),
        action_keys=(
            "guardrail.action",
            "guardrail_action",
            "guardrail.status",
            "guardrail_status",
        ),
    ),
)
RESPONSE_ID: Final = "gen_ai.response.id"
GUARDRAIL_SPAN: Final = "guardrail"
"""Name of the span that LiteLLM makes for each guardrail it ran."""
_ACTIONS: Final[dict[str, GuardrailAction]] = {
    **dict.fromkeys(("allow", "allowed", "pass", "passed", "success", "none"), GuardrailAction.ALLOWED),
    **dict.fromkeys(
        ("block", "blocked", "deny", "denied", "reject", "rejected", "guardrail_intervened",
         "intervened", "fail", "failure", "violation"),
        GuardrailAction.BLOCKED,
    ),
    **dict.fromkeys(("mask", "masked", "redact", "redacted", "anonymize", "anonymized"), GuardrailAction.MASKED),
    **dict.fromkeys(("flag", "flagged", "warn", "warning", "log"), GuardrailAction.FLAGGED),
    **dict.fromkeys(("guardrail_failed_to_respond", "error", "timeout", "failed"), GuardrailAction.FAILED),
}  # fmt: skip


def shape_of(name: str) -> EventShape | None:
    """Answer how an event of this name is read, None for one that says nothing about a call."""
    return next((shape for shape in SHAPES if name.startswith(shape.prefix)), None)


def action_of(text: str | None) -> GuardrailAction:
    """Classify what a guardrail did; what is not known is something to look at."""
    return _ACTIONS.get((text or "").strip().lower(), GuardrailAction.FLAGGED)
