"""``h2e report``: one page of what the other commands left in a folder."""

from __future__ import annotations

import json
from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import Any

import click

from h2e._sdata import keys as _keys

FILES = ("evaluate.json", "fit.json", "scores.csv", "quality.csv")
"""What a folder may hold, beside the slides that were predicted."""

AS_WRITTEN = {"dtype": dict.fromkeys(("slide", "group", "target"), str), "keep_default_na": False, "na_values": [""]}
"""How tables are read: names stay names, whatever numbers or missing values they look like."""

METRICS = {"pearson": "Pearson", "pearson_equal_depth": "Pearson at equal depth", "skill": "skill"}

MAPS = 24
"""Slides that are drawn, at most."""


@click.command()
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="The page; default: OUT/report.html.")
def report(out: Path, output: Path | None) -> None:
    """Make one HTML page of what is in the folder OUT: scores, quality of the slides, maps, settings."""
    import pandas as pd
    from anndata import AnnData
    from jinja2 import Template

    files = [out / name for name in FILES if (out / name).exists()]
    runs = {path.stem: json.loads(path.read_text("utf-8")) for path in files if path.suffix == ".json"}
    tables = {path.stem: pd.read_csv(path, **AS_WRITTEN) for path in files if path.suffix == ".csv"}
    slides = [json.loads(path.read_text("utf-8")) | {"file": path} for path in sorted(out.glob("slides/*.json"))]
    if not files and not slides:
        msg = f"OUT must be a folder that h2e evaluate, fit or predict wrote to; {out} has no {', '.join(FILES)} or slides."
        raise click.ClickException(msg)
    page: dict[str, Any] = {"out": out.absolute(), "runs": runs, "slides": slides, "names": METRICS}
    page["scores"] = _scores(tables["scores"]) if "scores" in tables else None
    if "quality" in tables:
        page["quality"] = tables["quality"].set_index("slide").fillna({"warnings": "", "um_per_px_from": ""})
        page["cohort"] = _picture("report", AnnData(uns={_keys.PREDICTION: {_keys.REPORT: page["quality"]}}))
    page["maps"] = [_map(one) for one in [one for one in slides if "error" not in one][:MAPS]]
    page["number"] = lambda value, how="z.2f": "–" if pd.isna(value) else format(value, how).replace("-", "−")
    text = Path(__file__).with_suffix(".html").read_text("utf-8")
    part = (output := output or out / "report.html").with_name(f".{output.name}.part")
    part.write_text(Template(text, autoescape=True, trim_blocks=True, lstrip_blocks=True).render(page), "utf-8")
    part.replace(output)
    click.echo(output)


def _picture(plot: str, *data: object, **options: object) -> str:
    """What a function of ``h2e.pl`` draws on a new figure, as a PNG in base 64."""
    import matplotlib.pyplot as plt

    from h2e import pl

    plt.switch_backend("agg")
    getattr(pl, plot)(*data, **options)
    plt.savefig(buffer := BytesIO(), format="png", dpi=110)
    plt.close()
    return b64encode(buffer.getvalue()).decode()


def _scores(scores: Any) -> dict[str, Any]:
    """Tables and pictures of scores, with what words about them need."""
    from h2e import metrics

    overall, by_group, by_target = (metrics.summarize(scores, by=by) for by in (None, "group", "target"))
    # Rounded as they are shown: words about them must not contradict them.
    methods = overall.pivot(index="method", columns="metric", values="mean").reindex(columns=list(METRICS)).round(2)
    ensemble = scores[scores["method"] == "ensemble"]
    return {
        "overall": overall.set_index(["metric", "method"]).xs("ensemble", level="method"),
        "methods": methods.join(overall[overall["metric"] == "pearson"].set_index("method")[["worst", "worst_group"]]),
        "best": methods[methods.index.str.startswith("baseline")].dropna(axis=1, how="all").idxmax(),
        "groups": by_group.pivot(index="group", columns=["method", "metric"], values="mean"),
        "sizes": ensemble.drop_duplicates(["group", "slide"]).groupby("group")["n_spots"].agg(["size", "sum"]),
        "weak": by_target.query("method == 'ensemble' and metric == 'skill' and mean < 0")["target"],
        "kind": "slide" if (ensemble["group"] == ensemble["slide"]).all() else "donor",
        "pictures": [_picture("scores", scores), _picture("target_scores", scores)],
    }


def _map(record: dict[str, Any]) -> dict[str, Any]:
    """A predicted slide with a picture of two targets, those of a skill below 0 last, or with why there is none."""
    from anndata import read_h5ad
    from spatialdata import read_zarr

    store = record["file"].with_suffix(".zarr")
    try:
        data = read_zarr(store) if store.exists() else read_h5ad(store.with_suffix(".h5ad"))
        table = getattr(data, "tables", {_keys.TABLE: data})[_keys.TABLE]
        weak = list(table.uns[_keys.PREDICTION].get(_keys.WEAK, ()))
        targets = sorted(table.obsm[_keys.PREDICTION], key=weak.__contains__)[:2]
        picture = _picture("spatial_pred", data if getattr(data, "images", ()) else table, targets, measured=False)
    except (KeyError, OSError, ValueError) as error:
        return {**record, "problem": f"{type(error).__name__}: {error}"}
    return {**record, "picture": picture, "weak": weak, "targets": targets}
