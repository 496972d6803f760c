"""What the documentation says about storing data and about versions is true, and its pictures are described in words."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
import spatialdata as sd

import h2e

if TYPE_CHECKING:
    from spatialdata import SpatialData

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "tutorials").glob("*.md"), ROOT / "README.md"])


def blocks_of(page: Path) -> list[str]:
    """The Python of a page that is shown and not run."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def test_the_recipes_of_the_page_on_storage_run_and_lose_nothing(cohort: SpatialData, monkeypatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    h2e.pp.normalize(cohort)
    ensemble = h2e.tl.fit(cohort, learners="mean", group_key="donor", n_targets=4, progress=False)
    names = {"h2e": h2e, "sdata": cohort, "ensemble": ensemble}
    first, second = blocks_of(ROOT / "docs" / "storage.md")
    exec(first, names)
    before = sd.read_zarr("cohort.zarr")
    assert "toy_A1_image_tissue" in before.labels
    assert not [key for key in before.images if key.endswith("normalized")]
    assert "h2e_loo" not in before["table"].obsm
    exec(second, names)
    after = sd.read_zarr("cohort.zarr")
    assert sorted(after.tables) == ["table"]
    pd.testing.assert_frame_equal(after["table"].obs[before["table"].obs.columns], before["table"].obs)
    pd.testing.assert_frame_equal(after["table"].obsm["h2e_loo"], names["stored"]["table"].obsm["h2e_loo"])
    assert after["table"].obsm["h2e_loo"].notna().any().all()


def test_a_table_that_is_being_updated_is_whole_on_disk_at_every_moment(
    cohort: SpatialData, monkeypatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    ensemble = h2e.tl.fit(cohort, learners="mean", group_key="donor", n_targets=4, progress=False)
    names = {"h2e": h2e, "ensemble": ensemble}
    cohort.write("cohort.zarr")

    def interrupted(self: SpatialData, name: str, **_: object) -> None:
        """Stop where the table itself is to be written again."""
        if name == "table":
            raise KeyboardInterrupt
        write(self, name)

    write = sd.SpatialData.write_element
    monkeypatch.setattr(sd.SpatialData, "write_element", interrupted)
    with pytest.raises(KeyboardInterrupt):
        exec(blocks_of(ROOT / "docs" / "storage.md")[1], names)
    left = sd.read_zarr("cohort.zarr")
    assert left["table_copy"].obsm["h2e_loo"].shape == (left["table_copy"].n_obs, 4)


def test_the_page_on_storage_names_every_default_key():
    text = (ROOT / "docs" / "storage.md").read_text(encoding="utf-8")
    keys = {value for name, value in vars(h2e._keys).items() if name.isupper() and isinstance(value, str)}
    made = {getattr(h2e._keys, name)("{image}") for name in ("tissue", "normalized")}
    made |= {getattr(h2e._keys, name)("h2e") for name in ("held_out", "spread", "lower", "upper", "novelty")}
    assert [key for key in sorted(keys | made) if key not in text] == []


def test_the_page_on_installation_lists_the_versions_of_the_project():
    text = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| ([a-z][\w-]*) \| ([\d.]+) \|$", text, flags=re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [f"{name}>={lowest}" for name, lowest in listed] == project["dependencies"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_picture_of_a_page_is_described_in_words(page: Path):
    text = page.read_text(encoding="utf-8")
    described = re.findall(r"^!\[(.*?)\]\(", text, flags=re.MULTILINE | re.DOTALL)
    for options in re.findall(r"^`{3,}\{(?:image|figure)\} [^\n]*\n((?::[^\n]*\n)*)", text, flags=re.MULTILINE):
        described += re.findall(r"^:alt: (.*)$", options, flags=re.MULTILINE) or [""]
    assert all(len(words) > 40 for words in described)
