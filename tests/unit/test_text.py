"""Answers as a person reads them in a terminal."""

from datetime import UTC, datetime

from controlplane.bootstrap.text import rerated
from controlplane.pipelines.rerate_answer import RerateAnswer


def test_the_sign_of_an_amount_goes_before_the_dollar() -> None:
    answer = RerateAnswer(
        run_id="run_1", state="previewed", price_version="prices@2", basis="calls",
        start=datetime(2026, 10, 1, tzinfo=UTC), end=datetime(2026, 11, 1, tzinfo=UTC),
        tenants=(), calls=1, corrections=0, old_usd="2", new_usd="0.5", moved_usd="-1.5", groups=[],
    )  # fmt: skip
    said = rerated(answer).splitlines()[-1]
    expected = "previewed: 1 call at another cost, 0 of them as corrections, -$1.5 moved, prices@2"
    assert expected == said
