"""How well each learner, transform and stack predicts groups that were left out, on real slides, beside the baselines.

Every row goes through the public ``h2e.tl.evaluate``, which chooses the targets, trains, stacks and scores anew
without each group; all predictions are mapped back to log-normalized expression, or to proportions.

    H2E_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/accuracy.py [--parts default stacks …]
    python benchmarks/accuracy.py --table     # prints the tables of docs/trust.md and docs/targets.md, from the file

The first form adds what is missing to benchmarks/results/accuracy.csv, run by run, so that it goes on where it was
interrupted; finished models are kept in ``--cache``. A row is the mean and the median over targets of one metric of
one method: of a held-out group or, with ``group`` "all", over the groups. "seconds" is the processor time of the run.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import h2e
from h2e._ensemble.stack import STACKS
from h2e._ensemble.transforms import TRANSFORMS
from h2e._learners.registry import DEFAULT_LEARNERS

if TYPE_CHECKING:
    from spatialdata import SpatialData

OUT = Path(__file__).parent / "results" / "accuracy.csv"

HER2ST, MOB = h2e.datasets.her2st, h2e.datasets.mob
SPLITS = {
    "her2st section": (HER2ST, "region", None),
    "her2st donor": (HER2ST, "donor", None),
    "mob animal": (MOB, "donor", None),
    "her2st donor, 8 cell types": (HER2ST, "donor", "major"),
    "her2st donor, 22 cell types": (HER2ST, "donor", "minor"),
    "her2st section, 8 cell types": (HER2ST, "region", "major"),
}
"""Name of a data set and of what is left out of it: how to load it, the column of the table, and what is predicted if not genes."""

GENES = list(SPLITS)[:3]
DEFAULTS = {"learners": "default", "images": "raw", "transform": "mixed", "programmes": 10, "stack": "mean"}
MEASURED = {"programmes": 0}  # learned from: transforms and stacks are compared without the programmes of genes
PARTS = {
    "default": [{"split": split} for split in SPLITS] + [{"split": s, "images": "normalized"} for s in GENES],
    "measured": [{"split": s, "images": images, **MEASURED} for images in ("raw", "normalized") for s in GENES],
    "stacks": [
        {"split": GENES[0], "stack": stack, **MEASURED} for stack in STACKS[1:]
    ],  # of two donors each is the mean
    "transforms": [{"split": s, "transform": t, **MEASURED} for t in TRANSFORMS[:-1] for s in GENES],
    "transforms-normalized": [
        {"split": s, "transform": t, "images": "normalized", **MEASURED} for t in TRANSFORMS[:-1] for s in GENES[1:]
    ],
    "centre": [{"split": s, "learners": "default + centre"} for s in reversed(GENES)],
    "multiscale": [{"split": "her2st donor", "learners": "default + multiscale"}],
}
"""What is run, as differences from ``DEFAULTS``."""

NETWORKS = {
    "default + centre": [h2e.tl.Multiscale(epochs=12, encoders=("center",))],
    "default + multiscale": [h2e.tl.Multiscale(epochs=12)],
}
"""Learners beside the default ones."""

NETWORK_TITLES = {
    "default + centre": "the default learners and the multiscale network with its centre encoder alone",
    "default + multiscale": "the default learners and the whole multiscale network",
}
WITH_NETWORK = ("ensemble", "multiscale", "without multiscale", "baseline: coordinates")

KEY = ["split", *DEFAULTS]
METRICS = ("pearson", "spearman", "skill", "variance_ratio", "within_domain")


def one_run(sdata: SpatialData, run: dict[str, object], cache: Path) -> pd.DataFrame:
    """Summaries over all groups and of each group."""
    _, group_key, obsm = SPLITS[run["split"]]
    learners: list = list(DEFAULT_LEARNERS)
    learners += NETWORKS.get(run["learners"], [])
    options = {"transform": run["transform"], "stack": run["stack"], "n_programmes": run["programmes"]}
    options |= {"group_key": group_key, "obsm": obsm}
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # third parties' deprecations, once a fold
        scores = h2e.tl.evaluate(
            sdata, learners=learners, metrics=METRICS, run_dir=cache / "models", progress=False, **options
        )
    seconds = time.process_time() - started
    parts = [h2e.metrics.summarize(scores).assign(group="all"), h2e.metrics.summarize(scores, by="group")]
    columns = ["method", "metric", "group", "mean", "median", "n_slides", "n_targets", "n_excluded"]
    return pd.concat(parts, ignore_index=True)[columns].assign(seconds=round(seconds))


def own_estimate(sdata: SpatialData, run: dict[str, object]) -> pd.DataFrame:
    """What an in-sample stack says of itself: its score on the spots that everything was trained on."""
    _, group_key, _ = SPLITS[run["split"]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"n_programmes": run["programmes"], "group_key": group_key, "progress": False}
        ensemble = h2e.tl.fit(sdata, stack="in_sample", **options)
        h2e.tl.predict(sdata, ensemble, in_sample=True, progress=False)
    table = sdata["table"]
    rows = np.flatnonzero(table.obsm["h2e"].notna().all(axis=1))
    prediction = table.obsm["h2e"].iloc[rows]
    # the spots of the ensemble, in its order
    regions = table.obs["region"].astype(str).to_numpy()[rows]
    truth = pd.DataFrame(ensemble.truth, index=ensemble.training.index, columns=list(ensemble.targets))
    instance = table.obs[table.uns["spatialdata_attrs"]["instance_key"]].astype(str).to_numpy()[rows]
    truth = truth.loc[list(zip(regions, instance, strict=True))]
    groups = table.obs[group_key].astype(str).to_numpy()[rows]
    mean = truth.to_numpy().mean(axis=0)
    scores = h2e.metrics.score(
        prediction.to_numpy(), truth.to_numpy(), slides=regions, groups=groups, baseline=mean, metrics=METRICS[:4]
    )
    return h2e.metrics.summarize(scores).assign(group="all", method="own estimate of in_sample", seconds=0)


def read() -> pd.DataFrame:
    """What was measured so far."""
    return pd.read_csv(OUT) if OUT.exists() else pd.DataFrame(columns=KEY)


def measure(parts: list[str], cache: Path) -> None:
    """Add what is missing to the file."""
    loaded: tuple = ()
    for run in (DEFAULTS | run for part in parts for run in PARTS[part]):
        key = tuple(run[name] for name in KEY)
        if key in set(read()[KEY].itertuples(index=False, name=None)):
            continue
        wanted = (SPLITS[run["split"]][0], run["images"])
        if loaded[:2] != wanted:
            sdata = wanted[0](progress=False)
            if run["images"] == "normalized":
                h2e.pp.normalize(sdata)
            loaded = (*wanted, sdata)
        found = one_run(loaded[2], run, cache)
        if run["stack"] == "in_sample":
            found = pd.concat([found, own_estimate(loaded[2], run)], ignore_index=True)
        found = pd.concat([pd.DataFrame([key] * len(found), columns=KEY), found[list(found)]], axis=1)
        OUT.parent.mkdir(exist_ok=True)
        columns = [
            *KEY,
            "method",
            "metric",
            "group",
            "mean",
            "median",
            "n_slides",
            "n_targets",
            "n_excluded",
            "seconds",
        ]
        found[columns].to_csv(OUT, mode="a", header=not OUT.exists(), index=False, float_format="%.4f")
        print(
            " | ".join(map(str, key)),
            wide_of(found[found["group"] == "all"], ["method"]).round(3).to_string(),
            sep="\n",
            flush=True,
        )


def wide_of(found: pd.DataFrame, rows: list[str]) -> pd.DataFrame:
    """One column a metric: the mean over targets, of the skill the median, which one target cannot ruin."""
    value = found["median"].where(found["metric"] == "skill", found["mean"])
    return found.assign(value=value).pivot_table(index=rows, columns="metric", values="value", sort=False)


def select(found: pd.DataFrame, **run: object) -> pd.DataFrame:
    """The rows of one run, by what differs from the defaults."""
    wanted = DEFAULTS | run
    return found[np.all([found[name] == value for name, value in wanted.items()], axis=0)]


def number(value: float) -> str:
    """Three digits and a proper minus; nothing where nothing was measured."""
    return "" if pd.isna(value) else f"{value:.3f}".replace("-", "−")


def table_of(heads: list[str], rows: dict[str, pd.DataFrame]) -> Iterator[str]:
    """A Markdown table: a line per method of each run, Pearson, skill and what guards against fooling oneself."""
    yield f"| {' | '.join(heads)} | Pearson | median skill | minus coordinates | within domains | variance ratio | coverage 80 / 90 % |"
    yield "|---|" + "---|" * (len(heads) + 5)
    for label, part in rows.items():
        wide = wide_of(part[part["group"] == "all"], ["method"])
        for method, row in wide.iterrows():
            place = wide["pearson"].get("baseline: coordinates", np.nan)
            cells = [
                row["pearson"],
                row["skill"],
                row["pearson"] - place,
                row.get("within_domain", np.nan),
                row["variance_ratio"],
            ]
            cover = " / ".join(f"{row[c]:.2f}" for c in ("coverage_80", "coverage_90") if c in row and pd.notna(row[c]))
            yield f"| {label} | {method} | {' | '.join(map(number, cells))} | {cover} |"
    yield ""


def overview(found: pd.DataFrame) -> Iterator[str]:
    """A line for each split: the default ensemble, on genes as measured, and the baselines that matter most."""
    baselines = ("texture", "coordinates", "shuffled")
    yield f"| left out of | ensemble | the same, `n_programmes=0` | {' | '.join(baselines)} |"
    yield "|---|---|---|" + "---|" * len(baselines)
    for split in SPLITS:
        for images in ("raw", "normalized"):
            runs = [select(found, split=split, images=images, **programmes) for programmes in ({}, MEASURED)]
            if not len(runs[0]):
                continue
            default, measured = (wide_of(run[run["group"] == "all"], ["method"]) for run in runs)
            rows = [default.loc["ensemble"], measured.loc["ensemble"] if len(measured) else None]
            rows += [default.loc[f"baseline: {name}"] for name in baselines]
            cells = [
                "" if row is None else f"{number(row['pearson'])}\u00a0/\u00a0{number(row['skill'])}" for row in rows
            ]
            yield f"| {split}{'' if images == 'raw' else ', normalized images'} | {' | '.join(cells)} |"
    yield ""


def tables(found: pd.DataFrame) -> Iterator[str]:
    """All tables of docs/trust.md; those of one split are folded away."""
    yield "**The default, and baselines**: Pearson / median skill (the mean of the training spots has 0 / 0)"
    yield ""
    yield from overview(found)
    for split in SPLITS:
        runs = {"raw": select(found, split=split), "normalized": select(found, split=split, images="normalized")}
        if len(runs["raw"]):
            yield f":::{{dropdown}} {split}: all learners, baselines and measures"
            yield ""
            yield from table_of(["images", "method"], {k: v for k, v in runs.items() if len(v)})
            yield ":::"
            yield ""
    for learners, what in NETWORK_TITLES.items():
        runs = {split: select(found, split=split, learners=learners) for split in GENES}
        runs = {split: run[run["method"].isin(WITH_NETWORK)] for split, run in runs.items() if len(run)}
        if runs:
            yield f"**{learners}**: {what}, 12 epochs"
            yield ""
            yield from (line for line in table_of(["left out of", "method"], runs) if "baseline" not in line)
    runs = {stack: select(found, split=GENES[0], stack=stack, **MEASURED) for stack in STACKS}
    methods = ("ensemble", "baseline: coordinates", "own estimate of in_sample")
    runs = {k: v[v["method"].isin(methods)] for k, v in runs.items() if len(v)}
    if len(runs) > 1:
        yield f"**{GENES[0]}**, stacks of the default learners on genes as measured (`n_programmes=0`)"
        yield ""
        yield from (line for line in table_of(["stack", "method"], runs) if "baseline" not in line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--parts", nargs="+", choices=list(PARTS), default=[part for part in PARTS if part != "multiscale"]
    )
    parser.add_argument("--cache", type=Path, default=Path(".cache/accuracy"))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        sys.stdout.write("\n".join(tables(read())))
    else:
        measure(options.parts, options.cache)


if __name__ == "__main__":
    main()
