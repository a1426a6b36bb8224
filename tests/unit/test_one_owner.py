"""One process at a time, and a sentence for the second."""

import os
from pathlib import Path

import pytest

from controlplane.bootstrap.one_owner import own, ready_directory
from controlplane.core.errors import ConfigError, UnavailableError


def test_the_second_owner_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    first = own(tmp_path / "lock", by="a collector")
    with pytest.raises(UnavailableError, match=r"a collector runs on .* choose another data_dir"):
        own(tmp_path / "lock", by="a collector")
    os.close(first)
    os.close(own(tmp_path / "lock", by="a collector"))


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_directory_that_can_not_be_is_a_setting_to_change(tmp_path: Path, below: str) -> None:
    """A file is in its place; a read-only directory can not be had as root."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConfigError) as refused:
        ready_directory(tmp_path / "taken" / below)
    assert "data_dir" == refused.value.key
