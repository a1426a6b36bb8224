import pytest

from controlplane.agent.litellm_start import check_hooks
from controlplane.core.errors import ConfigError


class Theirs:
    async def async_log_success_event(self, kwargs: object, start_time: object) -> None:
        del kwargs, start_time


class Same(Theirs):
    async def async_log_success_event(self, kwargs: object, start_time: object) -> None:  # type: ignore[explicit-override]  # as a plug-in does
        del kwargs, start_time


class Renamed(Theirs):
    async def async_log_success_event(self, kwargs: object, started: object) -> None:  # type: ignore[explicit-override]  # the trap that is tested
        del kwargs, started


def test_a_renamed_parameter_stops_the_proxy_at_start() -> None:
    """LiteLLM calls hooks by keyword and swallows the TypeError."""
    check_hooks(Same, Theirs)
    with pytest.raises(ConfigError, match="async_log_success_event"):
        check_hooks(Renamed, Theirs)
