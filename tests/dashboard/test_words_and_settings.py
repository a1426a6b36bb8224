import re
from pathlib import Path
from string import Formatter

import pytest

import dashboard
from dashboard import (
    course,
    csp,
    filters,
    frames,
    i18n,
    ledger,
    money_rows,
    quality,
    routing,
    savings,
    settings,
    tracing,
)

SOURCE = Path(dashboard.__file__).parent
FAMILIES = {
    "range_": filters.RANGES,
    "dim_": filters.GROUPS,
    "step_": filters.STEPS,
    "node_": ("applied", "pending", "rejected", "stale", "gone"),
    "line_": tuple(course.LINES),
    "told_": ("pending", "firing", "resolved"),
    "edit_": ("made", "changed", "stopped"),
    "mode_": ("hard", "soft", "shadow"),
    "part_": ledger.PARTS,
    "term_": money_rows.TERMS,
    "class_": money_rows.CLASSES,
    "figure_": money_rows.FIGURES,
    "compare_": ("previous", "last_week", "last_month", "last_year"),
    "verdict_": routing.VERDICTS,
    "column_": (
        *frames.GROUP_COLUMNS,
        *tracing.CALL_COLUMNS,
        *tracing.REPORT_COLUMNS,
        *tracing.TOOLTIPS,
        *ledger.GENERATION_COLUMNS,
        *ledger.NODE_COLUMNS,
        *course.EDIT_COLUMNS,
        *course.ALERT_COLUMNS,
        *routing.SAVINGS_COLUMNS,
        *routing.EXPERIMENT_COLUMNS,
        *quality.DUPLICATE_COLUMNS,
        *quality.EMITTER_COLUMNS,
        *money_rows.CHANGE_COLUMNS,
        *money_rows.UNIT_COLUMNS,
        *money_rows.RANK_COLUMNS,
        *money_rows.CELL_COLUMNS,
        *money_rows.CHART_COLUMNS,
        *savings.CACHE_COLUMNS,
        *savings.FEATURE_COLUMNS,
    ),
}


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_languages_have_the_same_keys_and_placeholders() -> None:
    english = i18n.catalogue("en")
    for language in i18n.LANGUAGES:
        other = i18n.catalogue(language)
        assert set(english) == set(other)
        for key, text in english.items():
            assert placeholders(text) == placeholders(other[key]), key


def test_every_key_the_pages_say_exists() -> None:
    code = "\n".join(path.read_text() for path in SOURCE.rglob("*.py"))
    said = set(re.findall(r'\bsay\(\s*"([a-z_]+)"', code))
    assert len(said) > 30
    assert said <= set(i18n.catalogue("en"))


def test_every_choice_has_a_name() -> None:
    wanted = {prefix + value for prefix, values in FAMILIES.items() for value in values}
    assert wanted <= set(i18n.catalogue("en"))


def test_settings_are_read_and_misspelt_ones_refused() -> None:
    told = settings.read(
        {
            "CONTROLPLANE_DASHBOARD_PORT": "0",
            "CONTROLPLANE_DASHBOARD_ALLOWED_HOSTS": "a,b",
            "X": "1",
        }
    )
    assert (told.port, told.allowed_hosts, told.host) == (0, ("a", "b"), "127.0.0.1")
    with pytest.raises(ValueError, match="CONTROLPLANE_DASHBOARD_PROT is not a setting"):
        settings.read({"CONTROLPLANE_DASHBOARD_PROT": "1"})
    with pytest.raises(ValueError, match="CONTROLPLANE_DASHBOARD_PORT is wrong"):
        settings.read({"CONTROLPLANE_DASHBOARD_PORT": "http"})


def test_policy_names_no_other_host_and_no_free_inline_script() -> None:
    policy = csp.policy()
    assert "http" not in policy
    scripts = next(part for part in policy.split("; ") if part.startswith("script-src"))
    assert "unsafe-inline" not in scripts
    assert "'sha256-" in scripts
