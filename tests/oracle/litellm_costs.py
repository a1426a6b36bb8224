"""Runs in LiteLLM's environment: JSON lines of calls in, what `completion_cost` says out.

Each line is `{"model", "provider", "usage": {bucket: tokens}, "service_tier"}`; the answer is
`{"usd": text}` or `{"error": name}`, in order. The price map is the one installed; nothing is fetched.
"""

import json
import os
import socket
import sys
import warnings
from typing import Any, NoReturn

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
warnings.simplefilter("ignore")
ANSWERS, sys.stdout = sys.stdout, sys.stderr  # the library prints hints


def _offline(*_args: object, **_kwargs: object) -> NoReturn:
    raise OSError("the oracle is offline")


socket.getaddrinfo = socket.create_connection = _offline

import litellm  # noqa: E402 - the variable is read at import
from litellm.types.utils import ModelResponse, Usage  # noqa: E402

INPUTS = ("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "input_audio")
OUTPUTS = ("output_text", "output_reasoning", "output_audio")


def cost(call: dict[str, Any]) -> float:
    used = call["usage"]
    written = used.get("cache_write_5m", 0) + used.get("cache_write_1h", 0)
    prompt = sum(used.get(name, 0) for name in INPUTS)
    completion = sum(used.get(name, 0) for name in OUTPUTS)
    details = {"cached_tokens": used.get("cache_read", 0)}
    if used.get("input_audio"):
        details["audio_tokens"] = used["input_audio"]
        details["text_tokens"] = used.get("input_uncached", 0)
    if written:
        details["cache_creation_tokens"] = written
        details["cache_creation_token_details"] = {
            "ephemeral_5m_input_tokens": used.get("cache_write_5m", 0),
            "ephemeral_1h_input_tokens": used.get("cache_write_1h", 0),
        }
    said = {
        "reasoning_tokens": used.get("output_reasoning", 0),
        "text_tokens": used.get("output_text", 0),
    }
    if used.get("output_audio"):
        said["audio_tokens"] = used["output_audio"]
    usage = Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=details,
        completion_tokens_details=said,
        **({"cache_creation_input_tokens": written} if written else {}),
        **({"cache_read_input_tokens": used["cache_read"]} if used.get("cache_read") else {}),
    )
    response = ModelResponse(model=call["model"], usage=usage)
    usd: float = litellm.completion_cost(
        completion_response=response,
        model=call["model"],
        custom_llm_provider=call["provider"],
        service_tier=call.get("service_tier"),
    )
    return usd


def main() -> None:
    for line in sys.stdin:
        call = json.loads(line)
        try:
            answer = {"usd": repr(cost(call))}
        except Exception as error:  # noqa: BLE001 - whatever it is, it is its answer
            answer = {"error": type(error).__name__}
        ANSWERS.write(json.dumps(answer) + "\n")


main()
