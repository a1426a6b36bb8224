"""Real OpenAI and Anthropic clients under real instrumentors; runs in `.venvs/clients`.

Arguments: the upstream's URL, the collector's, the maker of the instrumentors (`traceloop`,
`openinference`, or `none`: what the SDKs send by themselves), and the model to ask for.
"""

import importlib
import sys
from typing import Any

import anthropic
import openai
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

MAKERS = {
    "traceloop": (
        ("opentelemetry.instrumentation.openai", "OpenAIInstrumentor"),
        ("opentelemetry.instrumentation.anthropic", "AnthropicInstrumentor"),
    ),
    "openinference": (
        ("openinference.instrumentation.openai", "OpenAIInstrumentor"),
        ("openinference.instrumentation.anthropic", "AnthropicInstrumentor"),
    ),
    "none": (),
}
ROUNDS = 3
SAY: Any = [{"role": "user", "content": "some words to count"}]


def main(upstream: str, otlp: str, maker: str, model: str) -> None:
    resource = Resource.create({"service.name": f"live-{maker}", "team.id": model})
    provider = TracerProvider(resource=resource)
    exporter = OTLPSpanExporter(f"{otlp}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    for module, name in MAKERS[maker]:
        getattr(importlib.import_module(module), name)().instrument(tracer_provider=provider)
    if maker != "none":
        ask_openai(openai.OpenAI(base_url=f"{upstream}/v1", api_key="sk-x"), model)
    ask_anthropic(anthropic.Anthropic(base_url=upstream, api_key="sk-x"), model)
    provider.shutdown()


def ask_openai(client: openai.OpenAI, model: str) -> None:
    """Chat, streamed chat with and without company, Responses; three samples; a failure."""
    for _ in range(ROUNDS):
        client.chat.completions.create(model=model, messages=SAY, max_tokens=200)
        client.chat.completions.create(model=model, messages=SAY, max_tokens=50, n=3)
        with client.chat.completions.create(
            model=model,
            messages=SAY,
            max_tokens=200,
            stream=True,
            stream_options={"include_usage": True},
        ) as events:
            for _ in events:
                pass
        client.responses.create(model=model, input="some words", max_output_tokens=200)
    try:
        client.with_options(max_retries=0).chat.completions.create(
            model=f"{model}-busy", messages=SAY
        )
    except openai.RateLimitError:
        return
    raise AssertionError


def ask_anthropic(client: anthropic.Anthropic, model: str) -> None:
    """Messages, streamed and not, and a failure."""
    for _ in range(ROUNDS):
        client.messages.create(model=model, messages=SAY, max_tokens=200)
        with client.messages.stream(model=model, messages=SAY, max_tokens=200) as events:
            for _ in events:
                pass
    try:
        client.with_options(max_retries=0).messages.create(
            model=f"{model}-busy", messages=SAY, max_tokens=10
        )
    except anthropic.RateLimitError:
        return
    raise AssertionError


if __name__ == "__main__":
    main(*sys.argv[1:])
