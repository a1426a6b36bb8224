"""From the usage object of a response, in whichever of three shapes, to exclusive buckets."""

from collections.abc import Mapping

from controlplane.core.tokens import ImpossibleUsageError, ReportedUsage, decompose


def usage_buckets(usage: Mapping[str, object] | None) -> dict[str, int] | None:
    """Return the bucket vector of a provider's usage object; None when it says nothing usable.

    OpenAI chat completions and LiteLLM's normal form count `prompt_tokens`, cache included; OpenAI
    responses count `input_tokens`, cache included; Anthropic messages count `input_tokens` beside
    the cache (docs.anthropic.com, prompt caching). A report that does not decompose is None: the
    hold is then charged in full until a trace proves less.
    """
    if not usage:
        return None
    reported = _chat(usage) if "prompt_tokens" in usage else _responses_or_messages(usage)
    if reported.input_tokens is None and reported.output_tokens is None:
        return None
    if not reported.input_tokens and not reported.output_tokens:
        return None  # 0/0 on a success is "not said" (design section 5)
    try:
        return decompose(reported)
    except ImpossibleUsageError:
        return None


def _chat(usage: Mapping[str, object]) -> ReportedUsage:
    prompt = _part(usage, "prompt_tokens_details")
    completion = _part(usage, "completion_tokens_details")
    written = _number(usage, "cache_creation_input_tokens")
    if written is None:
        written = _number(prompt, "cache_creation_tokens")
    cached = _number(prompt, "cached_tokens")
    return ReportedUsage(
        input_tokens=_number(usage, "prompt_tokens"),
        cached_input_tokens=_number(usage, "cache_read_input_tokens") if cached is None else cached,
        cache_creation_input_tokens=written,
        cache_creation_1h_tokens=_number(
            _part(prompt, "cache_creation_token_details"), "ephemeral_1h_input_tokens"
        ),
        output_tokens=_number(usage, "completion_tokens"),
        reasoning_tokens=_number(completion, "reasoning_tokens"),
        input_audio_tokens=_number(prompt, "audio_tokens"),
        output_audio_tokens=_number(completion, "audio_tokens"),
    )


def _responses_or_messages(usage: Mapping[str, object]) -> ReportedUsage:
    fresh = _number(usage, "input_tokens")
    output = _number(usage, "output_tokens")
    read = _number(usage, "cache_read_input_tokens")
    written = _number(usage, "cache_creation_input_tokens")
    if read is None and written is None:
        return ReportedUsage(
            input_tokens=fresh,
            cached_input_tokens=_number(_part(usage, "input_tokens_details"), "cached_tokens"),
            output_tokens=output,
            reasoning_tokens=_number(_part(usage, "output_tokens_details"), "reasoning_tokens"),
        )
    return ReportedUsage(
        input_tokens=(fresh or 0) + (read or 0) + (written or 0),
        cached_input_tokens=read,
        cache_creation_input_tokens=written,
        cache_creation_1h_tokens=_number(
            _part(usage, "cache_creation"), "ephemeral_1h_input_tokens"
        ),
        output_tokens=output,
    )


def _part(usage: Mapping[str, object], name: str) -> Mapping[str, object]:
    part = usage.get(name)
    return part if isinstance(part, Mapping) else {}


def _number(usage: Mapping[str, object], name: str) -> int | None:
    value = usage.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
