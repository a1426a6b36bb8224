"""The targets and the fuzzers, by their full names."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path


def _load(name: str) -> None:
    """Import a module beside the tests before a test asks for it."""
    full_name = f"tests.fuzz.{name}"
    spec = spec_from_file_location(full_name, Path(__file__).parent / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[full_name] = module_from_spec(spec)
    spec.loader.exec_module(module)


_load("spans")
_load("targets")
_load("seeds")
_load("mutate")
_load("libfuzzer")
