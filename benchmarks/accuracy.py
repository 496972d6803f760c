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
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pandas as pd
import torch
from _data import load
from _record import CommandLine, append, read, select
from _tables import markdown, means_of, number, triple, wide

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

GENES, CELL_TYPES = list(SPLITS)[:3], ["her2st section, 8 cell types", "her2st donor, 8 cell types"]
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
    "default + centre": "the centre encoder of the network",
    "default + multiscale": "the whole network",
}
TRIPLE = ("pearson", "pearson_equal_depth", "skill")
"""Metrics of most cells."""

OTHER_MEASURES = {
    "against counts without biology": "pearson_no_biology",
    "beyond depth": "pearson_beyond_depth",
    "within domains": "within_domain",
    "variance of the prediction / of the truth": "variance_ratio",
}
HEADLINE = (
    "ensemble", "baseline: ridge on texture", "baseline: coordinates", "oracle: domains", "oracle: depth", "ceiling",
)  # fmt: skip

KEY = ["split", *DEFAULTS]
METRICS = (*TRIPLE, *OTHER_MEASURES.values(), "spearman")
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


def cells_of(runs: Iterable[pd.DataFrame], method: str, *metrics: str) -> list[str]:
    """Write metrics of a method, a cell for each run; nothing where it was not measured."""
    means = (of_all_groups(run) if len(run) else pd.DataFrame() for run in runs)
    return [triple(*(mean.loc[method].get(m) for m in metrics)) if method in mean.index else "" for mean in means]


def headline(measured: pd.DataFrame, splits: list[str], metrics: tuple[str, ...]) -> Iterator[str]:
    """Yield the default ensemble, and what it must beat."""
    runs = [runs_of(measured, split=split) for split in splits]
    rows = [[name, *cells_of(runs, name, *metrics)] for name in HEADLINE]
    yield from markdown(["method", *splits], [row for row in rows if any(row[1:])])
    yield ""


def other_measures(measured: pd.DataFrame) -> Iterator[str]:
    """Yield what else was measured of the default ensemble."""
    runs = [runs_of(measured, split=split) for split in GENES]
    ensembles = [select(run, group="all", method="ensemble").set_index("metric") for run in runs]

    def worst(metric: str, digits: int, form: str) -> list[str]:
        rows = (one.loc[metric] if metric in one.index else None for one in ensembles)
        texts = (
            (number(r["mean"], digits), r["worst_group"], number(r["worst"], digits)) if r is not None else None
            for r in rows
        )
        return ["" if text is None else form.format(*text) for text in texts]

    rows = [["Pearson of the worst donor", *worst("pearson", 3, "{2} ({1})")]]
    rows += [[label, *cells_of(runs, "ensemble", metric)] for label, metric in OTHER_MEASURES.items()]
    for level in (80, 90):
        covered = worst(f"coverage_{level}", 2, "{0} ({1} {2})")
        rows.append([f"share of values in {level} % intervals (worst donor)", *covered])
    yield from markdown(["the default", *GENES], rows)
    yield ""


def changes(measured: pd.DataFrame) -> Iterator[str]:
    """Yield what the ensemble scores with one thing changed."""

    def row(label: str, method: str = "ensemble", **run: object) -> list[str]:
        runs = [runs_of(measured, split=split, **run) for split in GENES]
        return [label, *cells_of(runs, method, *TRIPLE)]

    rows = [row("none"), row("`n_programmes=0`", **MEASURED), row("normalized images", images="normalized")]
    rows += [row(f"without {name}", f"without {name}") for name in DEFAULT_LEARNERS]
    rows += [row("texture alone", "texture")]
    for learners, what in NETWORKS.items():
        for seed in (0, 1):
            label = f"with {what}" + (f", seed {seed}" if seed else "")
            rows += [row(label, learners=learners, seed=seed)]
            rows += [row(f"{label}: it alone", "multiscale", learners=learners, seed=seed)]
    yield from markdown(["change", *GENES], [row for row in rows if any(row[1:])])
    yield ""


def siblings(measured: pd.DataFrame) -> Iterator[str]:
    """Yield what sections of the same donor add, on the donor that has several; of the others nothing is left."""
    runs = [select(runs_of(measured, split=split), group="C").assign(group="all") for split in GENES[:2]]
    rows = [[name, *cells_of(runs, name, *TRIPLE[:2])] for name in HEADLINE[:3]]
    yield from markdown(["donor C", "one section left out", "all four left out"], rows)
    yield ""


def stacks(measured: pd.DataFrame) -> Iterator[str]:
    """Yield the ensemble of each stack, and what the in-sample one says of its own training spots."""
    runs = {stack: runs_of(measured, split=GENES[0], stack=stack, **MEASURED) for stack in STACKS}
    rows = [[f'`"{stack}"`', *cells_of([run], "ensemble", *TRIPLE)] for stack, run in runs.items()]
    own = cells_of([runs["in_sample"]], "own estimate of in_sample", *TRIPLE)
    rows += [['`"in_sample"`, on the spots it was trained on', *own]]
    yield from markdown(["stack", GENES[0]], [row for row in rows if any(row[1:])])
    yield ""


def tables(measured: pd.DataFrame) -> Iterator[str]:
    """Yield all tables of docs/benchmarks.md."""
    parts = {
        "**Genes**": headline(measured, GENES, TRIPLE),
        "**Proportions of cell types** (Pearson / median skill)": headline(measured, CELL_TYPES, ("pearson", "skill")),
        "**Other measures of the default**": other_measures(measured),
        "**What sections of the same donor add** (Pearson / at equal depth)": siblings(measured),
        "**What one change does to the ensemble**": changes(measured),
        "**Stacks**, genes as measured (`n_programmes=0`)": stacks(measured),
    }
    for title, lines in parts.items():
        yield from (title, "", *lines)


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
