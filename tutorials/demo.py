"""The main job on real slides: score, prepare, train, predict, save, draw.

    python tutorials/demo.py --data real --out demo

Scores on the HER2+ breast cancer sections that ``h2e.datasets.her2st`` finds, with a section and with a donor left out,
trains an ensemble, and writes to the output folder ``scores.csv``, ``ensemble/``, ``predicted.zarr`` and
``predicted.png``. Without the sections it runs on synthetic slides and says so.
"""

from __future__ import annotations

import argparse
import shutil
import time
import warnings
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt
import pandas as pd
from spatialdata import SpatialData, get_pyramid_levels

import h2e

GENES = ["CD74", "EPCAM", "ERBB2"]
"""To draw, as far as they were chosen without each donor."""

SHOWN = {
    "ensemble": "ensemble",
    "baseline: ridge on texture": "ridge on texture",
    "baseline: coordinates": "position on the slide",
    "baseline: mean": "mean of the training slides",
    "oracle: domains": "oracle: means of domains",
}
"""Methods of the table, and what it calls them."""

MEASURES = {
    "pearson": ("Pearson", "mean"),
    "pearson_equal_depth": ("equal depth", "mean"),
    "skill": ("skill", "median"),
    "coverage_90": ("coverage 90 %", "mean"),
}
"""Columns of the table: its head, and whether it is the mean or the median over genes."""

SPLITS = {"region": "section", "donor": "donor"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=["real", "toy", "auto"], default="auto")
    parser.add_argument("--out", type=Path, default=Path("demo"))
    arguments = parser.parse_args()
    started = time.perf_counter()
    warnings.filterwarnings("ignore", message="zarr v3 autosharding|Your image has")  # A1 is a coarse image
    sdata, synthetic = load(arguments.data)
    note = "SYNTHETIC slides: no figure below says anything about real tissue." if synthetic else ""
    print(note or f"{len(sdata.images)} sections, {sdata['table'].n_obs} spots, {sdata['table'].n_vars} genes.")
    arguments.out.mkdir(parents=True, exist_ok=True)

    print("1/4  Scoring everything on sections and donors left out, images as they are: about 2 minutes.")
    scores, held_out = evaluate(sdata)
    scores.to_csv(arguments.out / "scores.csv", index=False)

    print("2/4  Tissue masks, one stain reference for all slides, ranks of expression.")
    h2e.pp.normalize(sdata)

    print("3/4  Training the ensemble on normalized images, for the genes chosen on all donors: half a minute.")
    ensemble = h2e.tl.fit(sdata, group_key="donor")
    print(ensemble)
    h2e.tl.predict(sdata, ensemble)

    print("4/4  Saving and drawing.")
    save(sdata, ensemble, arguments.out)
    draw(sdata, held_out, arguments.out / "predicted.png")
    print("\n" + table_of(scores).to_string(na_rep="") + "\n\n" + in_words(scores))
    seconds = time.perf_counter() - started
    print(f"\nWrote scores.csv, ensemble/, predicted.zarr and predicted.png to {arguments.out}/ in {seconds:.0f} s.")
    if synthetic:
        print(note)


def load(data: str) -> tuple[SpatialData, bool]:
    """The real sections, or the synthetic cohort where these cannot be had and were not insisted on."""
    if data == "toy":
        return h2e.datasets.toy_cohort(), True
    try:
        return h2e.datasets.her2st(), False
    except (OSError, ValueError) as error:
        if data == "real":
            raise SystemExit(f"the real sections cannot be had: {error}") from error
        print(f"The real sections cannot be had ({error}).")
        return h2e.datasets.toy_cohort(), True


def evaluate(sdata: SpatialData) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score the whole procedure without each section and without each donor; and what it predicts of donors left out."""
    parts = []
    for key, what in SPLITS.items():
        scores, held_out = h2e.tl.evaluate(sdata, group_key=key, return_predictions=True)
        parts.append(scores.assign(left_out=what))
    return pd.concat(parts, ignore_index=True), held_out


def table_of(scores: pd.DataFrame) -> pd.DataFrame:
    """Five methods, four measures, with a section and with a donor left out; donors weigh the same in both."""
    names = scores.loc[scores["left_out"] == "donor", ["slide", "group"]].drop_duplicates()
    means = h2e.metrics.summarize(scores, donors=dict(names.itertuples(index=False)))
    columns = {}
    for what in SPLITS.values():
        of_split = means[means["left_out"] == what].set_index(["method", "metric"])
        for metric, (head, statistic) in MEASURES.items():
            columns[f"{what} left out", head] = of_split[statistic].xs(metric, level="metric").reindex(list(SHOWN))
    # A rounded −0.00 is 0.
    return pd.DataFrame(columns).rename(SHOWN).round(2) + 0


def in_words(scores: pd.DataFrame) -> str:
    """What the table says of a new donor."""
    donor = table_of(scores)["donor left out"]
    ensemble, ridge = donor.loc["ensemble"], donor.loc["ridge on texture", "Pearson"]
    beside = "does as well" if abs(ensemble["Pearson"] - ridge) < 0.03 else f"reaches {ridge:.2f}"
    r, equal = ensemble["Pearson"], ensemble["equal depth"]
    use = "maps" if r > 0.5 else "regions, no single spots" if r > 0.1 else "nothing that can be used"
    return f"On a new donor expect a Pearson of about {r:.1f} ({equal:.2f} at equal depth): {use}; one ridge on texture {beside}."


def save(sdata: SpatialData, ensemble: h2e.Ensemble, out: Path) -> None:
    """Write the ensemble and the slides with their predictions, the images at a coarse level only."""
    ensemble.save(out / "ensemble")
    store = out / "predicted.zarr"
    shutil.rmtree(store, ignore_errors=True)
    coarse = {key: list(get_pyramid_levels(sdata.images[key]))[-2] for key in sdata.images if "normalized" not in key}
    elements = {"images": coarse, "labels": dict(sdata.labels), "shapes": dict(sdata.shapes)}
    SpatialData(**elements, tables={"table": sdata["table"]}, attrs=sdata.attrs).write(store)


def draw(sdata: SpatialData, held_out: pd.DataFrame, path: Path) -> None:
    """What was predicted of one section of each donor without the donor, beside what was measured."""
    table = sdata["table"]
    table.obsm["held_out"] = held_out
    # Genes are chosen anew without each donor: those that were chosen each time.
    there = held_out.groupby(table.obs["donor"].astype(str)).apply(lambda part: part.notna().any()).all()
    common = there.index[there].tolist()
    genes = [gene for gene in GENES if gene in common] or common
    one_per_donor = table.obs.groupby("donor", observed=True)["region"].first().tolist()
    h2e.pl.spatial_pred(sdata, genes[:2], key="held_out", measured=True, slides=one_per_donor)
    plt.savefig(path, dpi=110, bbox_inches="tight")
    plt.close("all")


if __name__ == "__main__":
    main()
