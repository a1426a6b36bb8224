"""Every family by engine, and the meaning of any metric by its name."""

from collections.abc import Mapping
from typing import Final

from controlplane.signals.families.dcgm import DCGM
from controlplane.signals.families.gen_ai import GEN_AI
from controlplane.signals.families.litellm import LITELLM
from controlplane.signals.families.sglang import SGLANG
from controlplane.signals.families.tgi import TGI
from controlplane.signals.families.triton import TRITON
from controlplane.signals.families.vllm import VLLM
from controlplane.signals.meanings import Family, Meaning, Series

FAMILIES: Final = (VLLM, SGLANG, TGI, TRITON, DCGM, LITELLM, GEN_AI)


def plain(name: str) -> str:
    """Spell a metric or label as Prometheus would, without the `_total` that only it writes.

    A collector between a program and us may have changed `.` and `:` to `_`, or added `_total`.
    """
    return name.replace(".", "_").replace(":", "_").removesuffix("_total")


_SERIES: Final[dict[str, tuple[Family, Series]]] = {
    plain(series.name): (family, series) for family in FAMILIES for series in family.series
}


class Known:
    """What is known of a metric: its meaning by labels, its unit's scale, where its model stands."""

    __slots__ = ("_by_value", "_label", "_meaning", "engine", "model_labels", "scale")

    def __init__(self, family: Family, series: Series) -> None:
        self.engine = family.engine
        self.scale = series.scale
        self.model_labels = tuple(plain(label) for label in family.model_labels)
        self._label = plain(series.label)
        self._by_value = series.by_value
        self._meaning = series.meaning

    def meaning(self, labels: Mapping[str, str]) -> Meaning | None:
        """Answer the meaning of a series with these labels (spelled plainly)."""
        if self._label:
            return self._by_value.get(labels.get(self._label, ""))
        return self._meaning


_KNOWN: Final = {name: Known(family, series) for name, (family, series) in _SERIES.items()}


def known(metric: str) -> Known | None:
    """Answer what a metric's name says, None for one that no family has."""
    return _KNOWN.get(plain(metric))
