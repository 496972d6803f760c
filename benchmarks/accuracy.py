"""How well each learner, transform and stack predicts groups that were left out, on real slides, beside the baselines.

Every row goes through the public ``h2e.tl.evaluate``, which chooses the targets, trains, stacks and scores anew
without each group; all predictions are mapped back to log-normalized expression, or to proportions. Donors weigh the
same in every split, also where single sections are left out.

    H2E_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/accuracy.py [--parts default stacks …]
    python benchmarks/accuracy.py --table     # prints the tables of docs/benchmarks.md, from the file
    python benchmarks/accuracy.py --encoder lazyslide:uni2   # whoever has its weights; minutes on a GPU, on a CPU hours

The first form adds what is missing to benchmarks/results/accuracy.csv, run by run, so that it goes on where it was
interrupted; finished models are kept in ``--cache``. A row is the mean and the median over targets of one metric of
one method: of a donor or, with ``group`` "all", over the donors, with the worst of them. "seconds" is the processor time
of the run: half a minute to five minutes, with the network a quarter of an hour, with the whole network (``--parts
multiscale``) hours. ``--encoder NAME`` takes any name of ``h2e.tl.Embedding``, alone and beside the default
learners, on genes; it was not run for the committed file.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

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
DEFAULTS = {
    "learners": "default", "images": "raw", "transform": "mixed", "programmes": 10, "stack": "mean", "seed": 0,
}  # fmt: skip
MEASURED = {"programmes": 0}
"""Genes as measured: transforms and stacks are compared without the programmes of genes."""

PARTS = {
    "default": [{"split": split} for split in SPLITS] + [{"split": s, "images": "normalized"} for s in GENES],
    "measured": [{"split": s, **MEASURED} for s in GENES],
    # With two donors left for training, each stack is the mean.
    "stacks": [{"split": GENES[0], "stack": stack, **MEASURED} for stack in STACKS[1:]],
    "transforms": [{"split": s, "transform": t, **MEASURED} for t in TRANSFORMS[:-1] for s in GENES],
    "centre": [{"split": s, "learners": "default + centre"} for s in reversed(GENES)],
    "multiscale": [{"split": "her2st donor", "learners": "default + multiscale", "seed": seed} for seed in (0, 1)],
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
MEASURES = {
    "Pearson": "pearson",
    "equal depth": "pearson_equal_depth",
    "no biology": "pearson_no_biology",
    "beyond depth": "pearson_beyond_depth",
    "median skill": "skill",
    "within domains": "within_domain",
    "variance ratio": "variance_ratio",
}
"""Heads of the tables, and the metric of each column."""

WITH_NETWORK = ("ensemble", "multiscale", "without multiscale")

KEY = ["split", *DEFAULTS]
METRICS = (*MEASURES.values(), "spearman")
VALUES = ["mean", "median", "worst", "worst_group", "n_slides", "n_targets", "n_excluded", "seconds"]
COLUMNS = [*KEY, "method", "metric", "group", *VALUES]

SMOKE_RUNS = [
    {"split": GENES[0]},
    {"split": "her2st section, 8 cell types", "images": "normalized"},
    {"split": GENES[0], "learners": "default + centre"},
    {"split": GENES[0], **MEASURED},
    {"split": GENES[0], "stack": "in_sample", **MEASURED},
    {"split": "her2st donor", "seed": 1},
]
TINY_NETWORK = h2e.tl.Multiscale(epochs=1, encoders=("center",), subtile_px=16, symmetries=False)
SMOKE_OPTIONS = {
    "default": {"learners": ("texture",), "n_targets": 4, "baselines": ("texture", "coordinates", "depth")},
    "default + centre": {"learners": ("mean", TINY_NETWORK), "n_targets": 4, "baselines": ("coordinates",)},
}


def learners_of(name: str) -> tuple:
    """The learners of a run, by their name in the file."""
    if name in LEARNERS:
        return LEARNERS[name]
    encoder = name.removeprefix("default + ")
    learner = h2e.tl.Embedding(encoder, cache=Path(".cache/accuracy/features"))
    return (learner,) if name == encoder else (*(one for one in DEFAULT_LEARNERS if one != "embedding"), learner)


def donors_of(sdata: SpatialData) -> dict[str, str]:
    """Give the donor of each slide."""
    obs = sdata["table"].obs
    return dict(zip(obs["region"].astype(str), obs["donor"].astype(str), strict=True))


def one_run(sdata: SpatialData, run: dict[str, object], **options: object) -> pd.DataFrame:
    """Average the scores over all donors and in each donor."""
    _, group_key, obsm = SPLITS[run["split"]]
    options |= {"transform": run["transform"], "stack": run["stack"], "n_programmes": run["programmes"]}
    options |= {"seed": run["seed"], "metrics": METRICS if obsm is None else None, "progress": False}
    # With two donors for training, models of one of them only make intervals, which are half of the network's time.
    no_folds = mock.patch("h2e.tl._evaluate.inner_folds", return_value=[])
    start = time.process_time()
    with no_folds if run["learners"] == "default + multiscale" else nullcontext():
        scores = h2e.tl.evaluate(sdata, group_key=group_key, obsm=obsm, **options)
    return means_of(scores, donors_of(sdata)).assign(seconds=round(time.process_time() - start))


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
        metrics=("pearson", "spearman", "skill", "variance_ratio"),
    )  # fmt: skip
    means = h2e.metrics.summarize(scores, donors=donors_of(sdata))
    return means.assign(group="all", method="own estimate of in_sample", seconds=0)


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
        options = SMOKE_OPTIONS[run["learners"]] if smoke else {"learners": learners_of(run["learners"])}
        means = one_run(loaded[2], run, run_dir=cache / "models", **options)
        if run["stack"] == "in_sample":
            means = pd.concat([means, own_estimate(loaded[2], run, options["learners"])], ignore_index=True)
        append(means.assign(**run).reindex(columns=COLUMNS), path)
        print(" | ".join(map(str, run.values())), of_all_groups(means).round(3).to_string(), sep="\n", flush=True)


def runs_of(measured: pd.DataFrame, **run: object) -> pd.DataFrame:
    """Take the rows of one run, by what differs from the defaults."""
    return select(measured, **(DEFAULTS | run))


def of_all_groups(run: pd.DataFrame) -> pd.DataFrame:
    """Give a line for each method, a column for each metric."""
    return wide(select(run, group="all"), ["method"])


def table_of(heads: list[str], runs: dict[str, pd.DataFrame]) -> Iterator[str]:
    """Yield a table: a line per method of each run, with what guards against fooling oneself."""
    measures = [head for head, metric in MEASURES.items() if any(metric in set(run["metric"]) for run in runs.values())]
    rows = []
    for label, run in runs.items():
        worst = select(run, group="all", metric="pearson").set_index("method")[["worst", "worst_group"]]
        intervals = select(run, group="all", method="ensemble").set_index("metric")
        for method, row in of_all_groups(run).iterrows():
            values = [number(row.get(MEASURES[head])) for head in measures]
            least = f"{number(worst.loc[method, 'worst'])} ({worst.loc[method, 'worst_group']})"
            of_intervals = ["", ""]
            if method == "ensemble" and "coverage_80" in intervals.index:
                levels = [intervals.loc[f"coverage_{level}"] for level in (80, 90)]
                covered = [f"{number(i['mean'], 2)} ({i['worst_group']} {number(i['worst'], 2)})" for i in levels]
                widths = (number(intervals.loc[f"width_{level}", "mean"], 1) for level in (80, 90))
                of_intervals = [" / ".join(covered), " / ".join(widths)]
            rows.append([*filter(None, [label]), method, values[0], least, *values[1:], *of_intervals])
    beside = ["coverage 80 / 90 % (worst donor)", "width 80 / 90 %"]
    yield from markdown([*heads, measures[0], "worst donor", *measures[1:], *beside], rows)
    yield ""


def overview(measured: pd.DataFrame) -> Iterator[str]:
    """Yield a line for each split: the default ensemble, on genes as measured, and what it must beat."""
    beside = ("baseline: ridge on texture", "baseline: coordinates", "oracle: depth", "ceiling")
    rows = []
    for split in SPLITS:
        for images in ("raw", "normalized"):
            runs = [runs_of(measured, split=split, images=images, **programmes) for programmes in ({}, MEASURED)]
            if not len(runs[0]):
                continue
            default, without = (of_all_groups(run) for run in runs)
            values = [default.loc["ensemble"], without.loc["ensemble"] if len(without) else None]
            values += [default.loc[name] if name in default.index else None for name in beside]
            metrics = ("pearson", "pearson_equal_depth", "skill")
            cells = [
                "" if v is None else "\u00a0/\u00a0".join(number(v.get(m)) or "–" for m in metrics) for v in values
            ]
            rows.append([split if images == "raw" else f"{split}, normalized images", *cells])
    yield from markdown(["left out of", "ensemble", "the same, `n_programmes=0`", *beside], rows)
    yield ""


def siblings(measured: pd.DataFrame) -> Iterator[str]:
    """Yield what sections of the same donor add, on the donors that have several; of the others nothing is left."""
    runs = {split: runs_of(measured, split=split) for split in GENES[:2]}
    rows = []
    for metric in ("pearson", "pearson_equal_depth"):
        for method in ("ensemble", "baseline: ridge on texture", "baseline: coordinates"):
            means = [select(run, metric=metric, method=method).set_index("group")["mean"] for run in runs.values()]
            rows.append([metric, method, *(number(one.get(donor)) for donor in "ABC" for one in means)])
    heads = [f"{donor}, {what} left out" for donor in "ABC" for what in ("section", "donor")]
    yield from markdown(["metric", "method", *heads], rows)
    yield ""


def tables(measured: pd.DataFrame) -> Iterator[str]:
    """Yield all tables of docs/benchmarks.md; those of one split are folded away."""
    yield "**The default, and what it must beat**: Pearson / Pearson at equal depth / median skill (the mean of the "
    yield "training spots has 0 / 0 / 0)"
    yield ""
    yield from overview(measured)
    yield "**What sections of the same donor add**: A and B have one section, C has four"
    yield ""
    yield from siblings(measured)
    for split in GENES:
        run = runs_of(measured, split=split)
        if len(run):
            yield f":::{{dropdown}} {split}: all learners, baselines and measures, images as they are"
            yield ""
            yield from table_of(["method"], {"": run})
            yield ":::"
            yield ""
    for learners, what in NETWORKS.items():
        runs = {
            f"{split}, seed {seed}": runs_of(measured, split=split, learners=learners, seed=seed)
            for split in GENES
            for seed in (0, 1)
        }
        runs = {split: run[run["method"].isin(WITH_NETWORK)] for split, run in runs.items() if len(run)}
        if runs:
            yield f"**{learners}**: {what}, 12 epochs"
            yield ""
            yield from table_of(["left out of", "method"], runs)
    runs = {stack: runs_of(measured, split=GENES[0], stack=stack, **MEASURED) for stack in STACKS}
    methods = ("ensemble", "own estimate of in_sample")
    runs = {k: v[v["method"].isin(methods)] for k, v in runs.items() if len(v)}
    if len(runs) > 1:
        yield f"**{GENES[0]}**, stacks of the default learners on genes as measured (`n_programmes=0`)"
        yield ""
        yield from table_of(["stack", "method"], runs)


def main() -> None:
    parser = CommandLine(__doc__)
    parts = [part for part in PARTS if part != "multiscale"]
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=parts)
    parser.add_argument("--encoder", metavar="NAME", help="run this encoder in place of the parts")
    parser.add_argument("--cache", type=Path, default=Path(".cache/accuracy"))
    parser.add_argument("--table", action="store_true", help="print the tables and stop")
    options = parser.parse_args()
    path = options.results / "accuracy.csv"
    if not options.table:
        torch.set_num_threads(1)
        # Third parties warn of deprecations in each fold.
        warnings.simplefilter("ignore")
        runs = SMOKE_RUNS if options.smoke else [run for part in options.parts for run in PARTS[part]]
        if options.encoder:
            learners = (options.encoder, f"default + {options.encoder}")
            runs = [{"split": split, "learners": one} for split in GENES for one in learners]
        measure(runs, path, options.out if options.smoke else options.cache, smoke=options.smoke)
    print("\n".join(tables(read(path))))


if __name__ == "__main__":
    main()
