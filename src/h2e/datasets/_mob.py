"""Sections of mouse olfactory bulb, measured by Spatial Transcriptomics on the array of 2,000 spots."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from h2e.datasets._cohort import Section, assemble, fit_pitch, read_counts, read_spots, spot_table
from h2e.datasets._fetch import fetch, local_folder, open_pyramid, read_registry, require

if TYPE_CHECKING:
    from spatialdata import SpatialData

URL = "https://raw.githubusercontent.com/jbergenstrahle/STUtility/9a8f421/"

STEP_UM = (6200 / 65 * 6600 / 62) ** 0.5
"""One step of row or column: the array has 66 × 63 places on 6.2 × 6.6 mm."""

RADIUS_UM = 50.0
N_LEVELS = 3

PLACES = ("{name}", "inst/extdata/counts", "inst/extdata", ".")
"""Where files are: in a folder for each bulb, in a clone of the source or a download, or all in one folder."""


def mob(folder: str | Path | None = None, *, progress: bool = True) -> SpatialData:
    """Four sections of mouse olfactory bulb of two animals as one lazy cohort.

    Spatial Transcriptomics on the array with 2,000 spots, from the examples of
    `STUtility <https://github.com/jbergenstrahle/STUtility>`_ (MIT licence): 1,000 genes, and images of 1,905 × 1,905
    pixels in which a fold and scratches on the glass are there to be dealt with. A section is placed on the array much
    as the other one of its animal, and as those of the other animal: position alone predicts a lot.

    Parameters
    ----------
    folder
        Folder with the files of the four bulbs, or a clone of the source. ``None`` takes ``$H2E_DATA/mob`` if that
        exists, and else downloads about 11 MB, once, to ``$H2E_CACHE`` (default: the system's cache).
    progress
        Show a progress bar.

    Returns
    -------
    Per section ``MOB1`` to ``MOB4``: image ``MOB1_image`` (a lazy pyramid of three levels), circles and coordinate
    system ``MOB1``. One table of the spots under tissue, named ``{section}_{x}x{y}``: sparse counts of genes by symbol,
    their Ensembl ids in ``var["gene_id"]``; ``obs`` columns ``region``, ``instance_id``, ``donor`` (the animal),
    ``array_row``, ``array_col``, ``um_per_px``.

    Notes
    -----
    The size of a pixel is not recorded, so it follows from the array, 6.2 × 6.6 mm with 66 × 63 places of which every
    other one is a spot: a step is 95 µm in x and 106 µm in y, the nearest spots are 143 µm apart, and a pixel is 4.42
    µm. Two things in the images agree: steps are longer in y than in x by 11 %, and the prints that spots left on the
    glass, averaged, are circles of 22 to 23 pixels: 100 µm, the diameter of a spot.

    Raises
    ------
    FileNotFoundError
        The folder lacks a file.
    OSError
        A file cannot be downloaded.
    ValueError
        A file is not the one that h2e knows.

    Examples
    --------
    >>> import h2e
    >>> sdata = h2e.datasets.mob()  # doctest: +SKIP
    >>> sdata["table"].obs["region"].value_counts(sort=False).to_dict()  # doctest: +SKIP
    {'MOB1': 379, 'MOB2': 407, 'MOB3': 438, 'MOB4': 403}
    """
    path = local_folder(folder, "mob") or fetch("mob", URL, read_registry("mob"), progress=progress)
    sdata = assemble([read_bulb(path, name, animal) for name, animal in read_animals(path).items()])
    table = sdata["table"]
    ids = table.var["gene_id"] = table.var_names.to_series()
    genes = pd.read_csv(find(path, ".", "mouse_genes.tsv.gz"), sep="\t").drop_duplicates("gene_id")
    symbols = genes.set_index("gene_id")["gene_name"].reindex(ids)
    ambiguous = symbols.isna() | symbols.duplicated(keep=False)
    table.var_names = pd.Index(np.where(ambiguous, ids, symbols), dtype=object)
    return sdata


def find(folder: Path, name: str, *files: str) -> Path:
    """Find a file of a bulb in any of the layouts."""
    patterns = [f"{place.format(name=name)}/{file}" for file in files for place in PLACES]
    return require(folder, *patterns, source="jbergenstrahle/STUtility")


def read_animals(folder: Path) -> dict[str, str]:
    """Read which animal each bulb is of."""
    frame = pd.read_csv(find(folder, ".", "metaData.csv"), sep=";")
    names = frame["samples"].str.extract(r"([^/\\]+)\.tsv", expand=False)
    return dict(sorted(zip(names, frame["individual"].astype(str), strict=True)))


def read_bulb(folder: Path, name: str, animal: str) -> Section:
    """Read the image of a bulb, and its spots that are under tissue."""
    spots = read_spots(find(folder, name, f"alignment_table_{name}.tsv"))
    # All places of the array are fitted, not only those of spots under tissue: more places, same array.
    step_px = fit_pitch(spots[["pixel_x", "pixel_y"]].to_numpy(), spots[["y", "x"]].to_numpy())
    counts = read_counts(find(folder, name, f"{name}.tsv.gz", f"{name}.tsv"))
    spots = spots[(spots["selected"] == 1) & spots.index.isin(counts.index)]
    um_per_px = STEP_UM / step_px
    table = spot_table(counts.loc[spots.index], spots, region=name, donor=animal, um_per_px=um_per_px)
    image = open_pyramid(find(folder, name, f"{name}.jpg"), name, n_levels=N_LEVELS)
    return Section(name, image, table, spots[["pixel_x", "pixel_y"]].to_numpy(), RADIUS_UM / um_per_px)
