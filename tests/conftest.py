"""What every test may ask for."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Examples are judged by what they show, never by how busy the machine is; CI repeats the same ones.
settings.register_profile("shared", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("shared")


@pytest.fixture(scope="session")
def full_size() -> bool:
    """Whether this is `make prove`: the same tests at the size of the claim."""
    return os.environ.get("CONTROLPLANE_TEST_FULL") == "1"


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a system Chromium; the test skips, counted, where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        for folder in os.environ.get("PATH", "").split(os.pathsep):
            if (path := Path(folder) / name).is_file():
                return str(path)
    pytest.skip(
        "no Chromium: install the system package `chromium` (tests/provide.sh does as root)"
    )
