"""The tutorials are run: small synthetic slides stand in for the HER2+ sections, and colours for learned features.

What they show of the real sections, they show when the site is built, and an error ends that build.
"""

from __future__ import annotations

import re
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import pytest
from click.testing import CliRunner

import h2e
from h2e.cli import main

if TYPE_CHECKING:
    from spatialdata import SpatialData

mpl.use("agg")

TUTORIALS = sorted((Path(__file__).parents[1] / "tutorials").glob("*.md"))
CELL = re.compile(
    r"^```\{code-cell\}[^\n]*\n(?P<about>---\n.*?^---\n|(?::[^\n]*\n)*)(?P<code>.*?)^```$",
    flags=re.MULTILINE | re.DOTALL,
)
DRAWS = re.compile(r"\b(h2e|sc|sq|sdata|shown)\.pl\.|\bplt\.subplots|\.plot[.(]")

STAND_IN = {"toy_A1": "C2", "toy_A2": "C3", "toy_B1": "B4", "toy_C1": "A1"}
GENES = ["EPCAM", "CD74"]

each_tutorial = pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.real_data] if "visium_mini(" in path.read_text() else [])
        for path in TUTORIALS
    ],
)
toy_cohort = partial(h2e.datasets.toy_cohort, side=7)


def cells_of(path: Path) -> list[re.Match]:
    """The cells of a tutorial in which code runs."""
    return list(CELL.finditer(path.read_text(encoding="utf-8")))


def stand_in(*_: object, sections: list[str] | None = None, **__: object) -> SpatialData:
    """The synthetic cohort under the names of ``h2e.datasets.her2st``: sections, donors, some genes, cell types."""
    from spatialdata import SpatialData
    from spatialdata.models import TableModel

    toy = toy_cohort()
    toy.rename_coordinate_systems(STAND_IN)
    table = toy["table"]
    table.obs["region"] = table.obs["region"].astype(str).map(STAND_IN).astype("category")
    table.obs["donor"] = table.obs["region"].astype(str).str[0].astype("category")
    table.obs_names = [f"{STAND_IN[name[:6]]}{name[6:]}" for name in table.obs_names]
    likely = h2e.pp.select_targets(table, group_key="donor", copy=True).var["h2e_target"]
    table.var_names = table.var_names.to_series().replace(dict(zip(table.var_names[likely], GENES, strict=False)))
    table.obsm["major"] = table.obsm.pop("proportions")
    del table.uns["spatialdata_attrs"]
    table = TableModel.parse(table, region=sorted(STAND_IN.values()), region_key="region", instance_key="instance_id")
    images = {f"{new}_image": toy.images[f"{old}_image"] for old, new in STAND_IN.items()}
    shapes = {new: toy.shapes[old] for old, new in STAND_IN.items()}
    sdata = SpatialData(images=images, shapes=shapes, tables={"table": table})
    return sdata if sections is None else sdata.filter_by_coordinate_system([s for s in sections if s in shapes])


def run_cell(code: str, name: str, names: dict[str, object]) -> None:
    """Run Python, or what a magic of IPython would do: write a file, or run a command of h2e, here in this process."""
    magic, _, text = code.partition("\n")
    if magic.startswith("%%writefile "):
        Path(magic.split()[1]).write_text(text)
    elif magic.startswith("%%bash"):
        result = CliRunner().invoke(main, shlex.split(text)[1:], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        names["said"] = result.output
    else:
        exec(compile(code, name, "exec"), names)


@pytest.mark.usefixtures("quick_models")
@pytest.mark.filterwarnings("ignore")  # of other packages' plots and readers; h2e's own are tested elsewhere
@each_tutorial
def test_every_cell_of_a_tutorial_runs(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    import matplotlib.pyplot as plt

    monkeypatch.setattr(h2e.datasets, "toy_cohort", toy_cohort)
    monkeypatch.setattr(h2e.datasets, "her2st", stand_in)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": path.stem, "display": lambda *_: None}
    for number, cell in enumerate(cells_of(path), start=1):
        run_cell(cell["code"], f"{path.name}, cell {number}", names)
        plt.close("all")
    assert number > 3


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_every_picture_of_a_tutorial_is_described_in_words(path: Path):
    for cell in cells_of(path):
        if DRAWS.search(cell["code"]):
            assert re.search(r"^    alt: \S.{40,}", cell["about"], flags=re.MULTILINE), cell["code"]


def test_every_tutorial_is_listed():
    listed = (Path(__file__).parents[1] / "docs" / "index.md").read_text(encoding="utf-8")
    assert {path.stem for path in TUTORIALS} == set(re.findall(r"^tutorials/(\w+)$", listed, flags=re.MULTILINE))
