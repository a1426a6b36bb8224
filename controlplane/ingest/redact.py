"""Which attributes hold what people wrote or models answered. They are dropped at decode.

The list is by key, not by value: a key that may hold content never reaches a table, whatever this
span put there. Usage and identity keys are read before, so that dropping can not lose money.
Source: the content row of every producer read on the wire, and the conventions' opt-in keys.
"""

import re
from typing import Final

_EXACT: Final = frozenset(
    {
        "all_messages_events",
        "error.message",
        "error.stack_trace",
        "events",
        "exception",
        "exception.message",
        "exception.stacktrace",
        "final_result",
        "gen_ai.completion",
        "gen_ai.prompt",
        "hidden_params",
        "input",
        "langfuse.observation.input",
        "langfuse.observation.output",
        "langfuse.trace.input",
        "langfuse.trace.output",
        "llm.prompt_template.template",
        "logfire.json_schema",
        "logfire.msg",
        "logfire.msg_template",
        "mlflow.spanInputs",
        "mlflow.spanOutputs",
        "model_request_parameters",
        "output",
        "parameters",
        "prompt",
        "request_data",
        "response",
        "response_data",
        "response_text",
        "system_instructions",
        "tool_arguments",
        "tool_response",
    }
)
_PATTERN: Final = re.compile(
    r"""
    ^(input|output)\.value$ |
    (^|[._])(messages?|contents?|prompts?|completions?|choices|arguments|documents?)($|[._]\d) |
    (^|\.)(input|output|inputs|outputs|input_messages|output_messages|system_instructions)$ |
    ^gen_ai\.(prompt|completion|input|output|system_instructions)\. |
    ^gen_ai\.tool\.(call\.(arguments|result)|definitions|description)$ |
    ^llm\.(prompts|completions|input_messages|output_messages|tools|function_call|prompt_template)($|\.) |
    ^llm\.[^.]+\.(messages|input|content|choices|data|prompt|system|tools|output|instructions)$ |
    ^embedding\.(embeddings|text|vector)($|\.) |
    ^(retrieval|reranker)\. |
    ^tool\.(parameters|description|json_schema|result) |
    ^tool_call\.function\.arguments |
    ^traceloop\.entity\.(input|output)$ |
    ^ai\.(prompt|response\.(text|object|toolCalls|reasoning|files)|toolCall\.(args|result)|value|values|embedding|embeddings|result|schema) |
    ^gcp\.vertex\.agent\.(llm_request|llm_response|tool_call_args|tool_response|data)$ |
    ^langsmith\.metadata\.(?!user|session|thread|ls_|tags?|team|tenant|feature|project) |
    ^metadata\.(mcp_tool_call_metadata|prompt_management_metadata|vector_store_request_metadata|requester_custom_headers|requester_ip_address|user_agent|headers|requester_metadata\.headers) |
    (^|\.)(system_prompt|user_prompt|query|answer|question|text|body|headers?|authorization|password|secret|token|api_key|cookie)$ |
    ^http\.(request|response)\.(header|body) |
    ^url\.(full|query)$ | ^http\.(url|target)$ | ^db\.(statement|query)
    """,
    re.VERBOSE,
)


def is_content(key: str) -> bool:
    """Tell whether an attribute key may hold content, a secret, or what leads to one."""
    return key in _EXACT or _PATTERN.search(key) is not None
