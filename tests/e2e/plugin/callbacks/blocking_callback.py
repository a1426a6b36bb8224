"""A callback of an operator's own: it refuses calls while they run, and answers that came."""

import asyncio
from typing import Any

from fastapi import HTTPException  # type: ignore[import-not-found]  # LiteLLM brings it
from litellm.integrations.custom_logger import CustomLogger


class Blocking(CustomLogger):  # type: ignore[misc]  # LiteLLM publishes no types here
    """Blocks what is called by certain names."""

    async def async_moderation_hook(
        self, data: dict[str, Any], user_api_key_dict: Any, call_type: str
    ) -> None:
        """Run beside the call."""
        del user_api_key_dict, call_type
        if data.get("model") == "blocked-meanwhile":
            await asyncio.sleep(1.5)  # the call has been sent by then, on a busy machine too
            raise HTTPException(400, detail="not this question")

    async def async_filter_deployments(
        self,
        model: str,
        healthy_deployments: list[Any],
        messages: list[Any] | None,
        request_kwargs: dict[str, Any] | None = None,
        parent_otel_span: Any = None,
    ) -> list[Any]:
        """Leave nothing to call: LiteLLM then falls back before it has sent anything."""
        del messages, request_kwargs, parent_otel_span
        return [] if model == "shut" else healthy_deployments

    async def async_post_call_success_hook(
        self, data: dict[str, Any], user_api_key_dict: Any, response: Any
    ) -> Any:
        """Run when the answer is here and paid for."""
        del user_api_key_dict
        if data.get("model") == "blocked-after":
            raise HTTPException(400, detail="not this answer")
        return response


handler = Blocking()
