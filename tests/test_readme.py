"""The README is run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import h2e.datasets

if TYPE_CHECKING:
    from spatialdata import SpatialData

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.usefixtures("quick_models")
def test_the_lines_of_the_readme_run_as_they_stand(
    cohort: SpatialData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Only the data differ: a cohort that every machine has, and one slide of one more donor in place of section B4."""
    new = h2e.datasets.toy_cohort(n_slides=5, n_donors=5).filter_by_coordinate_system("toy_E1")
    monkeypatch.setattr(h2e.datasets, "her2st", lambda *, sections: new if sections == ["B4"] else cohort)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "readme"}
    for number, block in enumerate(BLOCKS, start=1):
        exec(compile(block, f"README.md, block {number}", "exec"), names)
    assert new["table"].obsm["h2e"].notna().any(axis=None)  # it was new, so it was predicted
