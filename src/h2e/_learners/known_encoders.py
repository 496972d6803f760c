"""Encoders by name: the tiles that each was trained on, and the table of all that there are."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pandas as pd

SHELL = "shell"
"""The encoder that comes with h2e: 1.5 M parameters, trained on H&E to segment epithelium (lavlab-shell 0.9.1, MIT)."""

SHELL_PX, PX = 48, 224
"""Side of the images of the packaged encoder, and of encoders that do not say theirs."""

INSTALL = "pip install 'h2e[encoders]'"

# Patch size and magnification (20 × is 0.5 µm/px, 10 × is 1) as TRIDENT 0.3 lists them for each of its patch encoders
# (https://github.com/mahmoodlab/TRIDENT, README); lunit-dino-s16 is of the same paper as lunit-dino-s8.
_TILES = {
    (224, 0.5): "virchow virchow2 phikon phikonv2 h-optimus-0 h-optimus-1 h0-mini midnight mascaret phaet gpfm "
    "open-midnight genbio-pathfm hibou-l lunit-dino-s8 lunit-dino-s16 lunit-dino-s8-moozy",
    (256, 0.5): "uni uni2 gigapath gigapath-flash keep",
    (384, 0.5): "musk",
    (512, 0.5): "conch titan conch_v1.5",
    (256, 1.0): "ctranspath chief",
}
TILES = {name: tile for tile, names in _TILES.items() for name in names.split()}
"""Pixels and µm/px of the tiles that an encoder of LazySlide's registry is given."""

HUB = {
    "mahmoodlab/uni": "uni", "mahmoodlab/uni2-h": "uni2", "paige-ai/virchow": "virchow",
    "paige-ai/virchow2": "virchow2", "prov-gigapath/prov-gigapath": "gigapath", "bioptimus/h0-mini": "h0-mini",
    "bioptimus/h-optimus-0": "h-optimus-0", "bioptimus/h-optimus-1": "h-optimus-1",
    "1aurent/vit_small_patch8_224.lunit_dino": "lunit-dino-s8",
    "1aurent/vit_small_patch16_224.lunit_dino": "lunit-dino-s16",
}  # fmt: skip
"""The same encoders by the repositories that timm reads, in lower case."""

PLAIN = frozenset(
    [
        "crisp",
        "crown",
        "gigapath",
        "h-optimus-0",
        "h-optimus-1",
        "h0-mini",
        "lunit-bt",
        "lunit-mocov2",
        "lunit-swav",
        "lunit-dino-s8",
        "lunit-dino-s16",
        "lunit-dino-s8-moozy",
        "midnight",
        "mstar",
        "path_orchestra",
        "phikon",
        "phikonv2",
        "plip",
        "uni",
        "uni2",
        "virchow",
        "virchow2",
    ]
)
"""Encoders of LazySlide's registry (0.1.0) that neither run code of a repository nor unpickle; all others may."""


def known_tile(name: str) -> tuple[int | None, float | None]:
    """Pixels and µm/px of the tiles of a named encoder, as far as they are known without it."""
    kind, _, rest = name.partition(":")
    if kind == "lazyslide":
        return TILES.get(rest, (PX, None))
    return TILES.get(HUB.get(rest.removeprefix("hf-hub:").removeprefix("hf_hub:").lower(), ""), (None, None))


def registry() -> dict[str, Any]:
    """LazySlide's image encoders by name: classes that make them, and say their licence."""
    from lazyslide_models import MODEL_REGISTRY

    return {name: kind for name, kind in sorted(MODEL_REGISTRY.items()) if hasattr(kind, "encode_image")}


def list_encoders() -> pd.DataFrame:
    """List the encoders that have a name: the one of h2e, and those of LazySlide's registry.

    Every model of timm is one, too: ``"timm:NAME"``, or ``"timm:hf-hub:ORG/NAME"``.

    Returns
    -------
    A DataFrame indexed by ``name``, with ``parameters``, ``licence``, ``gated`` (terms must be accepted on
    huggingface.co), ``px`` and ``um_per_px`` of the tiles that it was trained on (missing: h2e does not know them),
    ``trust`` (needs ``trust_remote_code=True``) and ``installed``. What is missing is not known without the packages of
    ``pip install 'h2e[encoders]'``.

    Examples
    --------
    >>> list_encoders().loc["shell", ["licence", "px", "installed"]].tolist()
    ['MIT', 48, True]
    """
    installed = find_spec("lazyslide_models") is not None
    rows = {SHELL: ("1.5M", "MIT", False, SHELL_PX, None, False, True)}
    for name, kind in registry().items() if installed else dict.fromkeys(sorted(TILES)).items():
        licence = getattr(kind, "license", None)
        licence = ", ".join(licence) if isinstance(licence, list) else licence
        about = (getattr(kind, "param_size", None), licence, getattr(kind, "is_gated", None))
        rows[f"lazyslide:{name}"] = (*about, *TILES.get(name, (None, None)), name not in PLAIN, installed)
    columns = ["parameters", "licence", "gated", "px", "um_per_px", "trust", "installed"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).astype({"px": "Int64"}).rename_axis("name")
