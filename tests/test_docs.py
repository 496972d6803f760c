"""What the documentation says about storing and about versions is true, and its pictures are described in words."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
import spatialdata as sd

import h2e
from h2e._sdata import keys

if TYPE_CHECKING:
    from spatialdata import SpatialData

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "tutorials").glob("*.md"), ROOT / "README.md"])


def blocks_of(page: Path) -> list[str]:
    """The Python of a page that is shown and not run."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def test_the_recipes_of_the_page_on_storage_run_and_lose_nothing(two_slides: SpatialData, monkeypatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    h2e.pp.normalize(two_slides)
    ensemble = h2e.tl.fit(two_slides, learners="mean", group_key="donor", n_targets=4, progress=False)
    names = {"h2e": h2e, "sdata": two_slides, "ensemble": ensemble}
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
    two_slides: SpatialData, monkeypatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    ensemble = h2e.tl.fit(two_slides, learners="mean", group_key="donor", n_targets=4, progress=False)
    names = {"h2e": h2e, "ensemble": ensemble}
    two_slides.write("cohort.zarr")

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
    stored = {value for name, value in vars(keys).items() if name.isupper() and isinstance(value, str)}
    stored |= {getattr(keys, name)("{image}") for name in ("tissue", "normalized")}
    stored |= {getattr(keys, name)("h2e") for name in ("held_out", "std", "lower", "upper", "novelty")}
    assert [key for key in sorted(stored) if key not in text] == []


def test_the_page_on_installation_lists_the_versions_of_the_project():
    text = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| ([a-z][\w-]*) \| ([\d.]+) \|$", text, flags=re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [f"{name}>={lowest}" for name, lowest in listed] == project["dependencies"]


PICTURE = re.compile(r"[\w./-]+\.(?:jpe?g|png|svg|gif|webp)\b")
BLOCK = re.compile(r"^(`{3,})(?P<kind>[^\n]*)\n.*?^\1$", flags=re.MULTILINE | re.DOTALL)
MARKDOWN = re.compile(r"!\[(?P<words>[^]]*)\]\((?P<file>[^)]*)\)")
DIRECTIVE = re.compile(r"^`{3,}\{(?:image|figure)\} (?P<file>\S+)\n(?P<options>(?::[^\n]*\n)*)", flags=re.MULTILINE)


def pictures_of(text: str) -> dict[str, str]:
    """The pictures that a page names outside of code, and the words beside each; none where it is not known how."""
    text = BLOCK.sub(lambda block: block[0] if block["kind"].startswith(("{image}", "{figure}")) else "", text)
    words = {found["file"]: found["words"] for found in MARKDOWN.finditer(text)}
    for found in DIRECTIVE.finditer(text):
        words[found["file"]] = "".join(re.findall(r"^:alt: (.*)$", found["options"], flags=re.MULTILINE))
    return {file: words.get(file, "") for file in PICTURE.findall(text)}


def test_every_picture_of_a_page_is_described_in_words():
    described = {(page.name, *found) for page in PAGES for found in pictures_of(page.read_text("utf-8")).items()}
    assert len(described) > 10
    assert [picture for *picture, words in described if len(words) <= 40] == []


def test_every_plot_has_its_picture():
    assert {path.stem for path in (ROOT / "docs" / "_static").glob("pl_*")} == {f"pl_{name}" for name in h2e.pl.__all__}


@pytest.mark.parametrize(
    "text",
    [
        "![](a.jpg)\n",
        "text ![a map](docs/a.png) text\n",
        "```{figure} _static/a.jpg\n:width: 100%\n\nA caption that is long enough to stand in for the words.\n```\n",
        "```{image} a.svg\n:alt:\n:width: 520px\n```\n",
        '<img src="a.webp" alt="words that stand where nobody looks for them, however many they are">\n',
        ":::{card}\n:img-top: a.gif\n:::\n",
    ],
)
def test_a_picture_without_words_is_noticed(text: str):
    ((_, words),) = pictures_of(text).items()
    assert len(words) < 10
