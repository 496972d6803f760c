"""The page of ``h2e report``: whole in itself, true to the numbers, and no place for foreign HTML."""

from __future__ import annotations

import json
from base64 import b64decode
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from click.testing import CliRunner, Result
from spatialdata import SpatialData
from spatialdata.models import Image2DModel

from h2e import metrics

module = import_module("h2e.cli.report")

FOREIGN = "<script>alert(1)</script><img src=x onerror=alert(2)>"
VERSIONS = {"h2e": "0.1.0", "torch": "2.4"}
RECORD = {"command": "h2e …", "python": "h2e.tl.…", "settings": {"seed": 7}, "versions": VERSIONS, "seconds": 12.3}
RECORD |= {"finished": "2026-11-28T16:40:12+00:00"}
METHODS = {
    "ensemble": 0.42,
    "baseline: mean": 0.0,
    "baseline: ridge on texture": 0.3,
    "oracle: depth": 0.5,
    "ceiling": 0.8,
}


class Page(HTMLParser):
    """What a browser makes of a page: its elements with attributes, its text, and the text of each row of its tables."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements, self.text, self.rows = [], "", {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.row = [] if tag == "tr" else getattr(self, "row", [])
        self.row += [""] * (tag in ("th", "td"))

    def handle_data(self, data: str) -> None:
        self.text += data
        if getattr(self, "row", []):
            self.row[-1] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "tr":
            self.rows.setdefault(self.row[0], []).append(self.row[1:])
            self.row = []


def scores_of(ensemble: float = 0.42, *, donors: str = "AB", skill: float = 0.1) -> pd.DataFrame:
    """Scores of two slides of each donor and three targets; the mean of the ensemble is the given one."""
    rows = []
    for method, pearson in (METHODS | {"ensemble": ensemble}).items():
        for donor in donors:
            for i, slide in enumerate((f"{donor}1", f"{donor}2")):
                for j, target in enumerate(("CD74", "ERBB2", "GNAS")):
                    about = {"group": donor, "slide": slide, "target": target, "n_spots": 1000, "method": method}
                    off = 0.1 * (i - 0.5) + 0.2 * (j - 1) + 0.1 * (donor == donors[0]) - 0.1 * (donor != donors[0])
                    named = {"pearson": pearson + off, "pearson_equal_depth": pearson / 2 + off, "skill": skill + off}
                    named |= {"coverage_80": 0.75 + off / 10} if method == "ensemble" else {}
                    rows += [about | {"metric": metric, "value": value} for metric, value in named.items()]
    return pd.DataFrame(rows)


def quality_of(names: list[str]) -> pd.DataFrame:
    """A report of the preparation."""
    n = len(names)
    figures = {
        "um_per_px": 0.25,
        "tissue_mm2": 20.0,
        "spots_kept": 90,
        "on_tissue": 0.9,
        "shift": 0.1,
        "sharpness": -0.4,
    }
    report = pd.DataFrame(figures | {"saturation": 0.3, "hue": 300.0}, index=pd.Index(names, name="slide"))
    return report.assign(um_per_px_from=["argument"] * n, warnings=["looks like toy"] + [None] * (n - 1))


def predicted() -> AnnData:
    """A table with predictions."""
    xy = np.mgrid[:4, :4].reshape(2, -1).T * 10.0
    table = AnnData(np.ones((16, 2), np.float32), obsm={"spatial": xy}, uns={"h2e": {"skill_below_0": ["CD74"]}})
    table.obsm["h2e"] = pd.DataFrame(xy, index=table.obs_names, columns=["CD74", "ERBB2"])
    return table


def write_slide(out: Path, name: str, **record: object) -> None:
    """A predicted slide as a table, and its record."""
    about = {"um_per_px": 0.2738, "um_per_px_from": "the file", "n_spots": 16}
    write_record(out, name, **(about | record))
    predicted().write_h5ad(out / "slides" / f"{name}.h5ad")


def write_record(out: Path, name: str, **record: object) -> None:
    """The record of a slide."""
    (out / "slides").mkdir(exist_ok=True)
    (out / "slides" / f"{name}.json").write_text(
        json.dumps(RECORD | {"sample": name, "source": f"raw/{name}"} | record)
    )


def run(*arguments: object) -> Result:
    """Run the command as the shell does."""
    return CliRunner().invoke(module.report, [str(one) for one in arguments])


def page_of(out: Path) -> Page:
    """The page that the command makes."""
    result = run(out)
    assert result.exit_code == 0, result.output
    return Page((out / "report.html").read_text("utf-8"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Page]:
    """A folder with everything in it, and its page."""
    out = tmp_path_factory.mktemp("whole")
    scores_of().to_csv(out / "scores.csv", index=False)
    quality_of(["007", "NA"]).to_csv(out / "quality.csv")
    (out / "evaluate.json").write_text(json.dumps(RECORD))
    (out / "fit.json").write_text(json.dumps(RECORD | {"settings": {"left_out": {"blank": "no tissue was found"}}}))
    write_slide(out, "new.1")
    write_record(out, "bad", error="ValueError: um_per_px of 'bad' is not known")
    return out, page_of(out)


def test_the_page_needs_nothing_from_elsewhere(whole: tuple[Path, Page]):
    _, page = whole
    sources = [attrs["src"] for _, attrs in page.elements if "src" in attrs]
    links = {attrs["href"] for _, attrs in page.elements if "href" in attrs}
    assert len(sources) == 4
    assert all(b64decode(one.removeprefix("data:image/png;base64,"), validate=True)[1:4] == b"PNG" for one in sources)
    assert links == {"#failed", "https://h2e.readthedocs.io/page/trust.html"}
    assert {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object", "form"} == set()
    style = (whole[0] / "report.html").read_text("utf-8").partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_scores_are_those_of_summarize(whole: tuple[Path, Page]):
    out, page = whole
    scores = pd.read_csv(out / "scores.csv")
    overall = metrics.summarize(scores).set_index(["method", "metric"])
    for method in METHODS:
        of_pearson = overall.loc[method, "pearson"]
        expected = [overall.loc[method, metric]["mean"] for metric in module.METRICS] + [of_pearson["worst"]]
        (shown,) = page.rows[method]
        assert shown == [f"{value:z.2f}".replace("-", "−") for value in expected] + [of_pearson["worst_group"]]
    by_group = metrics.summarize(scores[scores["method"] == "ensemble"], by="group").set_index(["group", "metric"])
    for donor in "AB":
        expected = [f"{by_group.loc[(donor, metric), 'mean']:z.2f}".replace("-", "−") for metric in module.METRICS]
        assert page.rows[donor][0][:3] == expected
        assert page.rows[donor][0][-2:] == ["2", "2,000"]
    assert "2 donors, 4 slides, 4,000 spots, 3 targets" in page.text
    assert "hold 80 % of the measured values hold 75 %, on the worst donor (B) 74 %" in page.text
    assert "skill below 0, better not used: CD74" in page.text


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing, which takes most of the time."""
    monkeypatch.setattr(module, "_picture", lambda *_, **__: "")


@pytest.mark.parametrize(
    ("ensemble", "said"),
    [
        (0.42, ["is better than every baseline in Pearson and Pearson at equal depth, but not in skill", "hot spots"]),
        # 0.302 is shown as 0.30, as that of the baseline is.
        (0.302, ["not better than the best baseline", "the same as the best baseline, ridge on texture (0.30)"]),
        (0.09, ["not better than the best baseline", "0.21 less than the best baseline", "do not read the maps"]),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_words_follow_the_numbers_that_are_shown(tmp_path: Path, ensemble: float, said: list[str]):
    scores_of(ensemble, skill=0.0).to_csv(tmp_path / "scores.csv", index=False)
    text = " ".join(page_of(tmp_path).text.split())
    assert [one for one in said if one not in text] == []


@pytest.mark.usefixtures("undrawn")
def test_scores_of_slides_and_of_quarters_say_what_they_do_not_tell(tmp_path: Path):
    scores = scores_of()
    scores.assign(group=scores["slide"]).to_csv(tmp_path / "scores.csv", index=False)
    assert "too good for new donors" in page_of(tmp_path).text
    scores = scores.assign(group="within slide: " + scores["slide"], slide="A")
    scores.to_csv(tmp_path / "scores.csv", index=False)
    assert "hold for this slide only" in page_of(tmp_path).text


@pytest.mark.usefixtures("undrawn")
def test_scores_without_baselines_or_counts_or_skill_make_a_page(tmp_path: Path):
    scores = scores_of()
    of_ensemble = scores[(scores["method"] == "ensemble") & (scores["metric"] == "pearson")]
    of_ensemble.to_csv(tmp_path / "scores.csv", index=False)
    page = page_of(tmp_path)
    assert "No baseline was scored" in page.text
    assert page.rows["ensemble"] == [["0.42", "–", "–", "0.32", "B"]]


def test_each_slide_is_there_with_the_source_of_its_scale(whole: tuple[Path, Page]):
    _, page = whole
    assert page.rows["007"] == [["0.25", "argument", "20.00", "90", "90 %", "−0.40", "looks like toy"]]
    assert page.rows["NA"] == [["0.25", "argument", "20.00", "90", "90 %", "−0.40", ""]]
    assert page.rows["new.1"] == [["16", "0.2738", "the file", "raw/new.1"]]
    assert page.rows["bad"] == [["ValueError: um_per_px of 'bad' is not known", "raw/bad"]]
    assert page.rows["blank"] == [["no tissue was found", "left out by fit"]]
    assert "2 failed: which, and why" in page.text
    assert "new.1: ERBB2, CD74" in page.text, "a target of a skill below 0 comes last"
    assert "below 0 where the ensemble was fitted, better not used: CD74" in page.text
    assert "evaluate: done 2026-11-28 16:40 with h2e 0.1.0, in 12 s" in page.text
    assert "seed: 7" in page.text


@pytest.mark.usefixtures("undrawn")
def test_names_and_errors_bring_no_html_with_them(tmp_path: Path):
    scores = scores_of().replace(
        {"A": FOREIGN, "A1": FOREIGN, "CD74": FOREIGN, "baseline: mean": f"baseline: {FOREIGN}"}
    )
    scores.to_csv(tmp_path / "scores.csv", index=False)
    quality_of([FOREIGN]).assign(um_per_px_from=FOREIGN, warnings=FOREIGN).to_csv(tmp_path / "quality.csv")
    foreign = {"settings": {FOREIGN: FOREIGN}, "versions": {"h2e": FOREIGN, FOREIGN: FOREIGN}}
    foreign |= dict.fromkeys(("command", "python", "finished", "sample", "source", "um_per_px_from"), FOREIGN)
    (tmp_path / "fit.json").write_text(json.dumps(RECORD | foreign))
    write_slide(tmp_path, "ours", **foreign)
    write_record(tmp_path, "bad", **foreign, error=FOREIGN)
    page = page_of(tmp_path)
    pictures = [attrs for tag, attrs in page.elements if tag == "img"]
    assert {tag for tag, _ in page.elements} & {"script"} == set()
    assert all(set(attrs) == {"class", "alt", "src"} and attrs["src"].startswith("data:") for attrs in pictures)
    assert page.text.count(FOREIGN) > 20


@pytest.mark.parametrize("present", ["scores.csv", "quality.csv", "fit.json", "slide", "failed"])
@pytest.mark.usefixtures("undrawn")
def test_a_part_of_the_files_makes_a_page_that_says_what_is_missing(tmp_path: Path, present: str):
    make = {
        "scores.csv": lambda: scores_of().to_csv(tmp_path / "scores.csv", index=False),
        "quality.csv": lambda: quality_of(["S1"]).to_csv(tmp_path / "quality.csv"),
        "fit.json": lambda: (tmp_path / "fit.json").write_text("{}"),
        "slide": lambda: write_slide(tmp_path, "S1"),
        "failed": lambda: write_record(tmp_path, "S1", error="…"),
    }
    make[present]()
    page = page_of(tmp_path)
    missing = {
        "No evaluation was run": "scores.csv",
        "No ensemble was fitted": "fit.json",
        "No slide was predicted": "slide",
        "Nothing is known of the quality": "quality.csv",
    }
    assert {said for said in missing if said not in page.text} == {
        said for said, name in missing.items() if name == present
    }


def test_a_folder_without_any_of_them_is_refused(tmp_path: Path):
    result = run(tmp_path)
    assert result.exit_code == 1
    assert "OUT must be a folder that h2e evaluate, fit or predict wrote to" in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_drawn_does_not_stop_the_page(tmp_path: Path):
    write_slide(tmp_path, "cut short")
    write_slide(tmp_path, "gone")
    (tmp_path / "slides" / "cut short.h5ad").write_bytes(b"not whole")
    (tmp_path / "slides" / "gone.h5ad").unlink()
    text = " ".join(page_of(tmp_path).text.split())
    assert "cut short: cannot be drawn. OSError" in text
    assert "gone: cannot be drawn. FileNotFoundError" in text


@pytest.mark.usefixtures("undrawn")
def test_of_many_slides_some_are_drawn_and_the_rest_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAPS", 2)
    for i in range(4):
        write_slide(tmp_path, f"S{i}")
    page = page_of(tmp_path)
    assert sum(tag == "figure" for tag, _ in page.elements) == 2
    assert "2 more are not drawn: S2, S3" in page.text
    assert page.text.count("seed: 7") == 1, "settings that slides share are shown once"


@pytest.mark.parametrize("kind", [SpatialData, AnnData])
def test_a_store_is_drawn_on_its_image_if_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type):
    def draw(plot: str, data: object, targets: list[str], **_: object) -> str:
        drawn.append((plot, type(data), targets))
        return "…"

    drawn = []
    monkeypatch.setattr(module, "_picture", draw)
    write_record(tmp_path, "S1")
    images = {"S1": Image2DModel.parse(np.zeros((3, 8, 8), np.uint8))} if kind is SpatialData else {}
    SpatialData(images=images, tables={"table": predicted()}).write(tmp_path / "slides" / "S1.zarr")
    assert "S1: ERBB2, CD74" in page_of(tmp_path).text
    assert drawn == [("spatial_pred", kind, ["ERBB2", "CD74"])]


@pytest.mark.usefixtures("undrawn")
def test_a_page_that_cannot_be_written_leaves_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "fit.json").write_text(json.dumps(RECORD))
    page = tmp_path / "elsewhere.html"
    assert run(tmp_path, "--output", page).exit_code == 0
    last = page.read_text("utf-8")

    def half(path: Path, text: str, *_: object) -> None:
        path.write_bytes(text.encode()[:100])
        raise OSError("no space")

    monkeypatch.setattr(Path, "write_text", half)
    assert isinstance(run(tmp_path, "--output", page).exception, OSError)
    assert page.read_text("utf-8") == last
