"""The keys of a call, and every key that h2e reads or writes by default, with what it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

TABLE = "table"
"""``sdata.tables``: the one table over all slides."""

RANK = "rank"
"""``table.layers``: expression ranks, ``float32`` in [0, 1]."""

TARGET = "h2e_target"
"""``table.var``: which genes are targets, ``bool``."""

TISSUE_FRACTION = "tissue_fraction"
"""``table.obs``: share of the spot's own subtile that is tissue."""

UM_PER_PX = "um_per_px"
"""``table.obs``: µm per pixel of level 0 of the image that the spots are paired with."""

SPACING_UM = "spacing_um"
"""``sdata.shapes[grid]``: distance of neighbouring spots of a grid that h2e laid, in µm."""

PREDICTION = "h2e"
"""``table.obsm``: predictions, a ``float32`` DataFrame, spots × targets; ``table.uns``: how they were made;
``sdata.attrs``: how images were normalized."""

STAINS = "stains"
"""``sdata.attrs["h2e"]``: of each normalized image its source, its stains and the reference."""

TISSUE = "tissue"
"""``sdata.attrs["h2e"]``: of each tissue mask its image, method, scale and size."""

REALIGN = "realign"
"""``table.uns["h2e"]``: of each region how far its spots were off, and whether they were moved."""

PARAMS = "params"
"""``table.uns["h2e"]``: how each key of the table was made."""

SETTINGS = "settings"
"""``table.uns[key]``: what the predictions under ``key`` were made with."""

WEAK = "skill_below_0"
"""``table.uns[key]``: targets whose held-out predictions are worse than the mean."""

REPORT = "report"
"""``table.uns["h2e"]`` (without a table ``sdata.attrs["h2e"]``): what ``pp.normalize`` did, a row per slide."""


def tissue(image_key: str) -> str:
    """``sdata.labels`` key of the tissue mask of an image (same name as in squidpy)."""
    return f"{image_key}_tissue"


def normalized(image_key: str) -> str:
    """``sdata.images`` key of the stain-normalized version of an image (same name as in squidpy)."""
    return f"{image_key}_normalized"


def before_concatenate(name: str) -> str:
    """Name that the source has of a normalized image behind which ``spatialdata.concatenate`` put that of the slide."""
    return name.replace(f"{normalized('')}-", "-")


def held_out(key: str) -> str:
    """``table.obsm`` key of the held-out predictions that belong to the predictions under ``key``."""
    return f"{key}_loo"


def std(key: str) -> str:
    """``table.obsm`` key of the spread of the predictions under ``key``."""
    return f"{key}_std"


def lower(key: str) -> str:
    """``table.obsm`` key of the lower ends of the intervals of the predictions under ``key``."""
    return f"{key}_lower"


def upper(key: str) -> str:
    """``table.obsm`` key of the upper ends of the intervals of the predictions under ``key``."""
    return f"{key}_upper"


BESIDE = (held_out, std, lower, upper)
"""Functions that give the keys of ``table.obsm`` stored next to the predictions."""


def base_of(key: str) -> str:
    """``table.obsm`` key of the predictions that what is under ``key`` stands beside, or ``key`` itself.

    Examples
    --------
    >>> [base_of(key) for key in ("h2e", "h2e_loo", "mine_std")]
    ['h2e', 'h2e', 'mine']
    """
    for of in BESIDE:
        if key != of(""):
            key = key.removesuffix(of(""))
    return key


def novelty(key: str) -> str:
    """``table.obs`` key of how far spots are from what the models under ``key`` were trained on."""
    return f"{key}_novelty"


@dataclass(frozen=True)
class Keys:
    """Which elements and columns a call works on: the key arguments of a public function, under their own names."""

    table_key: str = TABLE
    image_key: str | Mapping[str, str] | None = None
    tissue_mask_key: str | None = None
    normalized_key: str | Mapping[str, str] | None = None
    library_key: str | None = None
    group_key: str | None = None
    um_per_px: float | Mapping[str, float] | None = None
