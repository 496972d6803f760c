"""``h2e report``: one page of what the other commands left in a folder."""

from __future__ import annotations

import json
from base64 import b64encode
from bisect import bisect
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd

from h2e import metrics, pl
from h2e._sdata import keys as _keys

METRICS = {"pearson": "Pearson", "pearson_equal_depth": "Pearson at equal depth", "skill": "skill"}
KINDS = ("ensemble", "baseline", "oracle", "ceiling")
"""Rows of the table of scores, in this order; what is none of them, such as single learners, comes last."""

MAPS = 24
"""Slides that are drawn, at most."""


@click.command()
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="The page; default: OUT/report.html.")
def report(out: Path, output: Path | None) -> None:
    """Make one HTML page of what is in the folder OUT: scores, quality of the slides, maps, settings."""
    import matplotlib.pyplot as plt
    from anndata import AnnData
    from jinja2 import Environment

    plt.switch_backend("agg")
    runs = {name: _record(path) for name in ("evaluate", "fit") if (path := out / f"{name}.json").exists()}
    slides = [_record(path) for path in sorted((out / "slides").glob("*.json"))]
    tables = {name: _read(path) for name in ("scores", "quality") if (path := out / f"{name}.csv").exists()}
    if not (runs or slides or tables):
        msg = f"{out} holds nothing of h2e: no scores.csv, quality.csv, evaluate.json, fit.json or slides/*.json. Give "
        msg += f"the folder that h2e evaluate, fit or predict wrote to, or run one of them with --out {out}."
        raise click.ClickException(msg)
    done = [one for one in slides if "error" not in one]
    stores = {path.stem for kind in ("zarr", "h5ad") for path in (out / "slides").glob(f"*.{kind}")}
    page: dict[str, Any] = {"out": out, "runs": runs, "version": version("h2e"), "names": METRICS, "done": done}
    page["failed"] = [one for one in [*runs.values(), *slides] if "error" in one]
    page["unfinished"] = sorted(stores - {one["file"].stem for one in slides})
    # Slides of one call have the same settings, which are shown once.
    page["calls"] = [*runs.values(), *{json.dumps([one.get("settings"), one.get("versions")]): one for one in done}.values()]
    if "scores" in tables:
        page["scores"] = _scores(tables["scores"])
    if "quality" in tables:
        page["quality"] = tables["quality"].set_index("slide")
        page["cohort"] = _picture(pl.report(AnnData(uns={_keys.PREDICTION: {_keys.REPORT: page["quality"]}})))
    page["maps"], page["undrawn"] = [_map(one) for one in done[:MAPS]], done[MAPS:]
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = lambda value, how="z.2f": "–" if pd.isna(value) else format(value, how)
    html = environment.from_string(Path(__file__).with_suffix(".html").read_text(encoding="utf-8")).render(page)
    output = output or out / "report.html"
    part = output.with_name(f".{output.name}.part")
    part.write_text(html, encoding="utf-8")
    part.replace(output)
    click.echo(output)


def _record(path: Path) -> dict[str, Any]:
    """What a command wrote down of a run; of a file that cannot be read, that it cannot."""
    try:
        return {**json.loads(path.read_text(encoding="utf-8")), "file": path}
    except (TypeError, ValueError) as error:
        return {"sample": path.stem, "file": path, "error": f"{path.name} cannot be read: {error}"}


def _read(path: Path) -> pd.DataFrame:
    """A table whose names stay as they are, whatever numbers or missing values they look like."""
    names = dict.fromkeys(("slide", "group", "target"), str)
    return pd.read_csv(path, dtype=names, keep_default_na=False, na_values=[""])


def _picture(axes: Any) -> str:
    """The figure of Axes as a PNG in base 64."""
    import matplotlib.pyplot as plt

    figure, buffer = np.ravel(axes)[0].figure, BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    plt.close(figure)
    return b64encode(buffer.getvalue()).decode()


def _scores(scores: pd.DataFrame) -> dict[str, Any]:
    """Tables and pictures of scores, rounded as they are shown, so that words made of them do not contradict them."""
    overall = metrics.summarize(scores).round(2)
    of_metric = {metric: rows.set_index("method") for metric, rows in overall.groupby("metric")}
    methods = overall.pivot(index="method", columns="metric", values="mean").reindex(columns=list(METRICS))
    kinds = [(*KINDS, kind).index(kind) for kind in methods.index.str.partition(":").get_level_values(0)]
    methods = methods.iloc[np.argsort(kinds, kind="stable")]
    baselines = methods[methods.index.str.startswith("baseline")]
    best = {metric: column.idxmax() for metric, column in baselines.items() if column.notna().any()}
    ensemble, compared = scores[scores["method"] == "ensemble"], scores["method"].isin(["ensemble", *best.values()])
    by_group = metrics.summarize(scores[compared], by="group").round(2)
    skill = metrics.summarize(ensemble[ensemble["metric"] == "skill"], by="target").set_index("target")["mean"]
    per_slide = (ensemble["group"] == ensemble["slide"]).all()
    return {
        "methods": methods.join(of_metric["pearson"][["worst", "worst_group"]]),
        "best": best,
        "groups": by_group.pivot(index="group", columns=["method", "metric"], values="mean"),
        "sizes": ensemble.drop_duplicates(["group", "slide"]).groupby("group")["n_spots"].agg(["size", "sum"]),
        "n": ensemble[["group", "slide", "target"]].nunique(),
        "intervals": overall[overall["metric"].str.startswith("coverage_")],
        "weak": skill[skill < 0].sort_values(),
        "band": bisect([0.1, 0.35, 0.6], methods.at["ensemble", "pearson"]),
        "kind": "slide" if per_slide else "quarter" if ensemble["group"].str.startswith("within slide: ").all() else "donor",
        "pictures": [_picture(pl.scores(scores)), _picture(pl.target_scores(scores))],
    }


def _map(record: dict[str, Any]) -> dict[str, Any]:
    """A predicted slide with a picture of its first two targets, or with why there is none."""
    from anndata import read_h5ad
    from spatialdata import read_zarr

    store = record["file"].with_suffix(".zarr")
    try:
        data = read_zarr(store) if store.exists() else read_h5ad(store.with_suffix(".h5ad"))
        table = getattr(data, "tables", {_keys.TABLE: data})[_keys.TABLE]
        axes = pl.spatial_pred(data if getattr(data, "images", ()) else table, measured=False, ncols=2)
    except (KeyError, OSError, ValueError) as error:
        return {**record, "problem": f"{type(error).__name__}: {error}"}
    return {**record, "picture": _picture(axes), "weak": list(table.uns[_keys.PREDICTION].get(_keys.WEAK, ()))}
