"""Keep a package out of this process, so that its absence is what optional users of it see."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from typing_extensions import override


class _Refuse(MetaPathFinder):
    def __init__(self, package: str) -> None:
        self._package = package

    @override
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == self._package:
            raise ModuleNotFoundError(f"{fullname} is kept out of this process", name=fullname)
        return None


def keep_out(package: str) -> None:
    """Let `import package` fail from here on, as if it were not installed."""
    sys.meta_path.insert(0, _Refuse(package))
