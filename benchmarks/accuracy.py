"""How well each learner, transform and stack predicts groups that were left out, on real slides, beside the baselines.

Every row goes through the public ``h2e.tl.evaluate``, which chooses the targets, trains, stacks and scores anew
without each group; all predictions are mapped back to log-normalized expression, or to proportions.

    H2E_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/accuracy.py [--parts default stacks …]
    python benchmarks/accuracy.py --table     # prints the tables of docs/trust.md and docs/targets.md, from the file

The first form adds what is missing to benchmarks/results/accuracy.csv, run by run, so that it goes on where it was
interrupted; finished models are kept in ``--cache``. A row is the mean and the median over targets of one metric of
one method: of a held-out group or, with ``group`` "all", over the groups. "seconds" is the processor time of the run:
one to nine minutes, with the network up to a quarter of an hour.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from _data import load
from _record import CommandLine, append, read, select
from _tables import markdown, means_of, number, wide

import h2e
from h2e._ensemble.stack import STACKS
from h2e._ensemble.transforms import TRANSFORMS
from h2e._learners.registry import DEFAULT_LEARNERS

if TYPE_CHECKING:
    from spatialdata import SpatialData

SPLITS = {
    "her2st section": ("her2st", "region", None),
    "her2st donor": ("her2st", "donor", None),
    "mob animal": ("mob", "donor", None),
    "her2st donor, 8 cell types": ("her2st", "donor", "major"),
    "her2st donor, 22 cell types": ("her2st", "donor", "minor"),
    "her2st section, 8 cell types": ("her2st", "region", "major"),
}
"""Name of a split: the data set, the column of the table that is left out, and what is predicted if not genes."""

GENES = list(SPLITS)[:3]
DEFAULTS = {"learners": "default", "images": "raw", "transform": "mixed", "programmes": 10, "stack": "mean"}
MEASURED = {"programmes": 0}
"""Genes as measured: transforms and stacks are compared without the programmes of genes."""

PARTS = {
    "default": [{"split": split} for split in SPLITS] + [{"split": s, "images": "normalized"} for s in GENES],
    "measured": [{"split": s, "images": images, **MEASURED} for images in ("raw", "normalized") for s in GENES],
    # With two donors left for training, each stack is the mean.
    "stacks": [{"split": GENES[0], "stack": stack, **MEASURED} for stack in STACKS[1:]],
    "transforms": [{"split": s, "transform": t, **MEASURED} for t in TRANSFORMS[:-1] for s in GENES],
    "transforms-normalized": [
        {"split": s, "transform": t, "images": "normalized", **MEASURED} for t in TRANSFORMS[:-1] for s in GENES[1:]
    ],
    "centre": [{"split": s, "learners": "default + centre"} for s in reversed(GENES)],
    "multiscale": [{"split": "her2st donor", "learners": "default + multiscale"}],
}
"""What is run, as differences from ``DEFAULTS``."""

LEARNERS = {
    "default": DEFAULT_LEARNERS,
    "default + centre": (*DEFAULT_LEARNERS, h2e.tl.Multiscale(epochs=12, encoders=("center",))),
    "default + multiscale": (*DEFAULT_LEARNERS, h2e.tl.Multiscale(epochs=12)),
}
NETWORKS = {
    "default + centre": "the default learners and the multiscale network with its centre encoder alone",
    "default + multiscale": "the default learners and the whole multiscale network",
}
MEASURES = ("Pearson", "median skill", "minus coordinates", "within domains", "variance ratio", "coverage 80 / 90 %")
WITH_NETWORK = ("ensemble", "multiscale", "without multiscale", "baseline: coordinates")

KEY = ["split", *DEFAULTS]
METRICS = ("pearson", "spearman", "skill", "variance_ratio", "within_domain")
COLUMNS = [*KEY, "method", "metric", "group", "mean", "median", "n_slides", "n_targets", "n_excluded", "seconds"]

SMOKE_RUNS = [
    {"split": GENES[0]},
    {"split": "her2st section, 8 cell types", "images": "normalized"},
    {"split": GENES[0], "learners": "default + centre"},
    {"split": GENES[0], **MEASURED},
    {"split": GENES[0], "stack": "in_sample", **MEASURED},
]
TINY_NETWORK = h2e.tl.Multiscale(epochs=1, encoders=("center",), subtile_px=16, symmetries=False)
SMOKE_OPTIONS = {
    "default": {"learners": ("texture",), "n_targets": 4, "baselines": ("texture", "coordinates", "shuffled")},
    "default + centre": {"learners": ("mean", TINY_NETWORK), "n_targets": 4, "baselines": ("coordinates",)},
}


def one_run(sdata: SpatialData, run: dict[str, object], **options: object) -> pd.DataFrame:
    """Average the scores over all groups and in each group."""
    _, group_key, obsm = SPLITS[run["split"]]
    options |= {"transform": run["transform"], "stack": run["stack"], "n_programmes": run["programmes"]}
    start = time.process_time()
    scores = h2e.tl.evaluate(sdata, group_key=group_key, obsm=obsm, metrics=METRICS, progress=False, **options)
    return means_of(scores).assign(seconds=round(time.process_time() - start))


def own_estimate(sdata: SpatialData, run: dict[str, object], learners: tuple) -> pd.DataFrame:
    """Score what an in-sample stack says of the spots that everything was trained on."""
    _, group_key, _ = SPLITS[run["split"]]
    options = {"learners": learners, "n_programmes": run["programmes"], "group_key": group_key, "progress": False}
    ensemble = h2e.tl.fit(sdata, stack="in_sample", **options)
    h2e.tl.predict(sdata, ensemble, in_sample=True, progress=False)
    table = sdata["table"]
    table = table[table.obsm["h2e"].notna().all(axis=1)]
    regions, groups = (table.obs[key].astype(str).to_numpy() for key in ("region", group_key))
    instances = table.obs[table.uns["spatialdata_attrs"]["instance_key"]].astype(str)
    measured = pd.DataFrame(ensemble.truth, index=ensemble.training.index, columns=list(ensemble.targets))
    measured = measured.loc[list(zip(regions, instances, strict=True))].to_numpy()
    scores = h2e.metrics.score(
        table.obsm["h2e"].to_numpy(), measured, slides=regions, groups=groups, baseline=measured.mean(axis=0),
        metrics=METRICS[:4],
    )  # fmt: skip
    return h2e.metrics.summarize(scores).assign(group="all", method="own estimate of in_sample", seconds=0)


def measure(runs: list[dict[str, object]], path: Path, cache: Path, *, smoke: bool) -> None:
    """Add what is missing to the file."""
    loaded: tuple = ()
    for run in (DEFAULTS | run for run in runs):
        if len(select(read(path), **run)):
            continue
        wanted = (SPLITS[run["split"]][0], run["images"])
        if loaded[:2] != wanted:
            sdata = load(wanted[0], smoke=smoke)
            if run["images"] == "normalized":
                h2e.pp.normalize(sdata)
            loaded = (*wanted, sdata)
        options = SMOKE_OPTIONS[run["learners"]] if smoke else {"learners": LEARNERS[run["learners"]]}
        means = one_run(loaded[2], run, run_dir=cache / "models", **options)
        if run["stack"] == "in_sample":
            means = pd.concat([means, own_estimate(loaded[2], run, options["learners"])], ignore_index=True)
        append(means.assign(**run)[COLUMNS], path)
        print(" | ".join(map(str, run.values())), of_all_groups(means).round(3).to_string(), sep="\n", flush=True)


def runs_of(measured: pd.DataFrame, **run: object) -> pd.DataFrame:
    """Take the rows of one run, by what differs from the defaults."""
    return select(measured, **(DEFAULTS | run))


def of_all_groups(run: pd.DataFrame) -> pd.DataFrame:
    """Give a line for each method, a column for each metric."""
    return wide(select(run, group="all"), ["method"])


def table_of(heads: list[str], runs: dict[str, pd.DataFrame]) -> Iterator[str]:
    """Yield a table: a line per method of each run, Pearson, skill and what guards against fooling oneself."""
    rows = []
    for label, run in runs.items():
        table = of_all_groups(run)
        for method, row in table.iterrows():
            from_place = row["pearson"] - table["pearson"].get("baseline: coordinates", np.nan)
            values = row["pearson"], row["skill"], from_place, row.get("within_domain"), row["variance_ratio"]
            coverage = (number(row.get(name), 2) for name in ("coverage_80", "coverage_90"))
            rows.append([label, method, *map(number, values), " / ".join(filter(None, coverage))])
    yield from markdown([*heads, *MEASURES], rows)
    yield ""


def overview(measured: pd.DataFrame) -> Iterator[str]:
    """Yield a line for each split: the default ensemble, on genes as measured, and the baselines that matter most."""
    baselines = ("texture", "coordinates", "shuffled")
    rows = []
    for split in SPLITS:
        for images in ("raw", "normalized"):
            runs = [runs_of(measured, split=split, images=images, **programmes) for programmes in ({}, MEASURED)]
            if not len(runs[0]):
                continue
            default, without = (of_all_groups(run) for run in runs)
            values = [default.loc["ensemble"], without.loc["ensemble"] if len(without) else None]
            values += [default.loc[f"baseline: {name}"] for name in baselines]
            cells = ["" if v is None else f"{number(v['pearson'])}\u00a0/\u00a0{number(v['skill'])}" for v in values]
            rows.append([split if images == "raw" else f"{split}, normalized images", *cells])
    yield from markdown(["left out of", "ensemble", "the same, `n_programmes=0`", *baselines], rows)
    yield ""


def tables(measured: pd.DataFrame) -> Iterator[str]:
    """Yield all tables of docs/trust.md; those of one split are folded away."""
    yield "**The default, and baselines**: Pearson / median skill (the mean of the training spots has 0 / 0)"
    yield ""
    yield from overview(measured)
    for split in SPLITS:
        runs = {images: runs_of(measured, split=split, images=images) for images in ("raw", "normalized")}
        if len(runs["raw"]):
            yield f":::{{dropdown}} {split}: all learners, baselines and measures"
            yield ""
            yield from table_of(["images", "method"], {k: v for k, v in runs.items() if len(v)})
            yield ":::"
            yield ""
    for learners, what in NETWORKS.items():
        runs = {split: runs_of(measured, split=split, learners=learners) for split in GENES}
        runs = {split: run[run["method"].isin(WITH_NETWORK)] for split, run in runs.items() if len(run)}
        if runs:
            yield f"**{learners}**: {what}, 12 epochs"
            yield ""
            yield from (line for line in table_of(["left out of", "method"], runs) if "baseline" not in line)
    runs = {stack: runs_of(measured, split=GENES[0], stack=stack, **MEASURED) for stack in STACKS}
    methods = ("ensemble", "baseline: coordinates", "own estimate of in_sample")
    runs = {k: v[v["method"].isin(methods)] for k, v in runs.items() if len(v)}
    if len(runs) > 1:
        yield f"**{GENES[0]}**, stacks of the default learners on genes as measured (`n_programmes=0`)"
        yield ""
        yield from (line for line in table_of(["stack", "method"], runs) if "baseline" not in line)


def main() -> None:
    parser = CommandLine(__doc__)
    parts = [part for part in PARTS if part != "multiscale"]
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=parts)
    parser.add_argument("--cache", type=Path, default=Path(".cache/accuracy"))
    parser.add_argument("--table", action="store_true", help="print the tables and stop")
    options = parser.parse_args()
    path = options.results / "accuracy.csv"
    if not options.table:
        torch.set_num_threads(1)
        # Third parties warn of deprecations in each fold.
        warnings.simplefilter("ignore")
        runs = SMOKE_RUNS if options.smoke else [run for part in options.parts for run in PARTS[part]]
        measure(runs, path, options.out if options.smoke else options.cache, smoke=options.smoke)
    print("\n".join(tables(read(path))))


if __name__ == "__main__":
    main()
