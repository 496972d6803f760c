"""The rows of the ablation: what each one changes, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from h2e._learners.learner import Learner
from h2e._learners.multiscale import Multiscale
from h2e._learners.texture import Texture


@dataclass(frozen=True)
class Row:
    """One thing changed."""

    name: str
    what: str
    learner: Learner
    transform: str = "mixed"
    images: str = "raw"  # or "normalized"
    spots: str = "as recorded"  # or "realigned", "displaced", "displaced, realigned"
    filtered: bool = True  # spots without tissue are left out of training
    run: str = "one"  # a name of ``_ablation_runs.RUNS``: how the models of a fold become predictions
    also: dict[str, str] = field(default_factory=dict)  # further methods that the same models give

    @property
    def methods(self) -> dict[str, str]:
        """Name and description of each line that the row gives."""
        return {self.name: self.what, **self.also}


TEXTURE = Texture()

CHEAP = (
    Row("base", "the default transform, images as they are", TEXTURE),
    Row("stain normalization", "images through `pp.normalize`, reference of the training slides", TEXTURE, images="normalized"),
    Row("raw values", "log-normalized expression as it is", TEXTURE, transform="log"),
    Row("standardized", "standardized within the slide only", TEXTURE, transform="standardized"),
    Row("rank in slide and gene", "the target is ranked", TEXTURE, transform="gene_rank"),
    Row("rank in spot", "the target is ranked, as in the source", TEXTURE, transform="spot_rank"),
    Row("realigned", "`pp.realign_spots` on the slides as they are", TEXTURE, spots="realigned"),
    Row("displaced", "all spots moved by 1.6 spacings, each slide its own way", TEXTURE, spots="displaced"),
    Row("displaced, all kept", "the same; spots without tissue stay in training", TEXTURE, spots="displaced", filtered=False),
    Row("displaced, realigned", "moved, then `pp.realign_spots`", TEXTURE, spots="displaced, realigned"),
)  # fmt: skip

BASE = Multiscale()

RECIPE = Multiscale(symmetries=False, stain_jitter=0.0, ema=None)

NETWORK = (
    Row("base", "the published network, D4 and stain augmentation, averaged weights", BASE),
    Row("source, last epoch", "no augmentation, no averaged weights, rank in spot", RECIPE, transform="spot_rank", run="epochs",
        also={"source, best epoch": "the same run, its epoch chosen on the held-out donor, a leak"}),
    Row("tile encoder dropped", "subtiles and centre only", replace(BASE, encoders=("subtiles", "center"))),
    Row("subtile encoder dropped", "tile and centre only", replace(BASE, encoders=("tile", "center"))),
    Row("center encoder dropped", "tile and subtiles only", replace(BASE, encoders=("tile", "subtiles"))),
    Row("center encoder alone", "neither tile nor subtiles", replace(BASE, encoders=("center",))),
    Row("rank in spot", "the target is ranked within the spot", BASE, transform="spot_rank"),
    Row("raw values", "log-normalized expression as it is", BASE, transform="log"),
    Row("stain normalization", "images through `pp.normalize`", BASE, images="normalized"),
    Row("no augmentation", "symmetries and stain jitter off, in prediction too", replace(BASE, symmetries=False, stain_jitter=0.0)),
    Row("plain blocks", "no shortcuts", replace(BASE, residual=False)),
    Row("global pooling", "one average per channel in place of several scales", replace(BASE, pyramid_pooling=False)),
    Row("tile 26 px", "tile 26, subtiles 16 (the least) of the same extent", replace(BASE, tile_px=26, subtile_px=16)),
    Row("tile 52 px", "tile 52, subtiles 18 of the same extent", replace(BASE, tile_px=52, subtile_px=18)),
    Row("source, several models", "the source's recipe, one model for each training section left out, averaged", RECIPE,
        transform="spot_rank", run="in-sample",
        also={"source, in-sample stack": "the source's recipe, with a perceptron on predictions of training spots"}),
    Row("several models", "one for each training section left out, averaged", BASE, run="sections"),
    Row("tile 104 px", "tile 104, subtiles 34 of the same extent", replace(BASE, tile_px=104, subtile_px=34)),
    Row("subtile 52 px", "tile 78, nine subtiles of 52 that overlap", replace(BASE, subtile_px=52)),
    Row("subtile 78 px", "tile 104, nine subtiles of 78 that overlap", replace(BASE, tile_px=104, subtile_px=78)),
)  # fmt: skip
"""What says most comes first."""


def smoke_rows() -> list[Row]:
    """Give one row for each way through the code, the networks small."""
    texture = ("base", "stain normalization", "displaced, all kept", "displaced, realigned")
    network = ("base", "source, last epoch", "source, several models", "several models")
    return [row for row in CHEAP if row.name in texture] + [
        replace(row, learner=replace(row.learner, encoders=("center",), subtile_px=16))
        for row in NETWORK
        if row.name in network
    ]
