"""The main job on real slides: prepare, train, score, predict, save, draw.

    python tutorials/demo.py --data real --out demo

Trains on the HER2+ breast cancer sections that ``h2e.datasets.her2st`` finds, prints the table of ``h2e.tl.evaluate``
with a section and with a donor left out, and writes to the output folder ``scores.csv``, ``ensemble/``,
``predicted.zarr`` and ``predicted.png``. Without the sections it runs on synthetic slides and says so.
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

GENES = ["CD74", "EPCAM"]
"""To draw, as far as they are among the targets."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=["real", "toy", "auto"], default="auto")
    parser.add_argument("--out", type=Path, default=Path("demo"))
    arguments = parser.parse_args()
    started = time.perf_counter()
    warnings.filterwarnings("ignore", message="zarr v3 autosharding|.*tiles are enlarged")  # A1 is a coarse image
    sdata, synthetic = load(arguments.data)
    note = "SYNTHETIC slides: no figure below says anything about real tissue." if synthetic else ""
    print(note or f"{len(sdata.images)} sections, {sdata['table'].n_obs} spots, {sdata['table'].n_vars} genes.")
    arguments.out.mkdir(parents=True, exist_ok=True)

    h2e.pp.normalize(sdata)
    print(sdata["table"].uns["h2e"]["report"].round(2).to_string(), "\n")

    scores = pd.concat([evaluate(sdata, split) for split in ("region", "donor")], ignore_index=True)
    scores.to_csv(arguments.out / "scores.csv", index=False)

    print("Training the ensemble of the default learners, for the genes chosen on all donors.")
    ensemble = h2e.tl.fit(sdata, group_key="donor")
    print(ensemble)
    h2e.tl.predict(sdata, ensemble)

    save(sdata, ensemble, arguments.out)
    draw(sdata, [gene for gene in GENES if gene in ensemble.targets] or None, arguments.out / "predicted.png")
    print(
        f"\nWrote scores.csv, ensemble/, predicted.zarr and predicted.png to {arguments.out}/ in {time.perf_counter() - started:.0f} s."
    )
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


def evaluate(sdata: SpatialData, split: str) -> pd.DataFrame:
    """Score the whole procedure without each section or donor, and print the table."""
    what = {"region": "section", "donor": "donor"}[split]
    print(f"Each {what} left out (the default learners):")
    scores = h2e.tl.evaluate(sdata, group_key=split).assign(left_out=what)
    wide = h2e.metrics.summarize(scores.drop(columns="left_out"))
    wide = wide.pivot_table(index="method", columns="metric", values=["mean", "median"], sort=False)
    print(wide.round(3).to_string(), "\n")
    each = h2e.metrics.summarize(scores[scores["metric"] == "pearson"].drop(columns="left_out"), by="slide")
    print("mean Pearson of each section:")
    print(each.pivot_table(index="method", columns="slide", values="mean", sort=False).round(3).to_string(), "\n")
    return scores


def save(sdata: SpatialData, ensemble: h2e.Ensemble, out: Path) -> None:
    """Write the ensemble and the slides with their predictions, the images at a coarse level only."""
    ensemble.save(out / "ensemble")
    store = out / "predicted.zarr"
    shutil.rmtree(store, ignore_errors=True)
    coarse = {key: list(get_pyramid_levels(sdata.images[key]))[-2] for key in sdata.images if "normalized" not in key}
    elements = {"images": coarse, "labels": dict(sdata.labels), "shapes": dict(sdata.shapes)}
    SpatialData(**elements, tables={"table": sdata["table"]}, attrs=sdata.attrs).write(store)


def draw(sdata: SpatialData, genes: list[str], path: Path) -> None:
    """Held-out predictions beside what was measured."""
    one_per_donor = sdata["table"].obs.groupby("donor", observed=True)["region"].first().tolist()
    h2e.pl.spatial_pred(sdata, genes, slides=one_per_donor)
    plt.savefig(path, dpi=110, bbox_inches="tight")
    plt.close("all")


if __name__ == "__main__":
    main()
