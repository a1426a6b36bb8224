"""Runs one target under libFuzzer: `python tests/fuzz/drive.py TARGET [libFuzzer's arguments]`.

It runs in an environment of its own (`make .venvs/fuzz/.installed`), because Atheris instruments
what it imports and has wheels for few interpreters.
"""

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[2]))
with atheris.instrument_imports(
    include=["controlplane", "collectors", "prometheus_client", "yaml"],
    enable_loader_override=False,
):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz until libFuzzer is done."""
    target = TARGETS[sys.argv.pop(1)]

    def take(data: bytes) -> None:
        target(data)

    atheris.Setup(sys.argv, take)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
