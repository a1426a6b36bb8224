"""What must hold before the plug-in serves, and what it does when the proxy is told to end."""

import importlib.util
import inspect
import signal
import threading
from types import FrameType

from controlplane.agent.runtime import Agent
from controlplane.core.errors import ConfigError


def retire_on_sigterm(agent: Agent) -> None:
    """Give the leases back when the proxy is told to end.

    uvicorn drains on SIGTERM and then dies of it, so nothing registered with `atexit` runs. Its
    handler stays in charge; ours only goes first. What still gets lost is in the journal.
    """
    theirs = signal.getsignal(signal.SIGTERM)
    if not callable(theirs) or threading.current_thread() is not threading.main_thread():
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        agent.retire()
        theirs(number, frame)

    signal.signal(signal.SIGTERM, terminate)


def answer_without_prisma(exception_handler: type) -> None:
    """Let LiteLLM answer with an error where Prisma, its database client, is not installed.

    Its batch routes ask of every exception whether it is one of Prisma's, import it to do so, and
    fail over that: whatever was raised, a refusal too, becomes a 500. What is not installed raised
    nothing.
    """
    name = "is_read_only_transaction_error"
    if hasattr(exception_handler, name) and importlib.util.find_spec("prisma") is None:
        setattr(exception_handler, name, staticmethod(lambda _: False))


def check_hooks(handler: type, theirs_class: type) -> None:
    """Refuse to start when a hook's parameters are not LiteLLM's own.

    LiteLLM calls hooks by keyword, and a TypeError in one is only a line in its log while the
    request goes through: enforcement would be off and nobody would know.

    Raises:
        ConfigError: names the hook.
    """
    for name in (name for name in vars(handler) if name.startswith("async_")):
        theirs = inspect.signature(getattr(theirs_class, name)).parameters
        ours = inspect.signature(getattr(handler, name)).parameters
        if list(theirs) != list(ours):
            raise ConfigError(
                f"litellm.{name}",
                f"takes {list(theirs)} in this LiteLLM, the plug-in has {list(ours)}",
                "Install the LiteLLM version that the plug-in was written for",
            )
