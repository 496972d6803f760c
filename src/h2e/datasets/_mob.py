"""Sections of mouse olfactory bulb, measured by Spatial Transcriptomics on the array of 2,000 spots."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from h2e.datasets._cohort import assemble, circles, fit_pitch, read_counts, spot_table
from h2e.datasets._fetch import cache_folder, fetch, local_folder, locate, read_registry
from h2e.datasets._pyramids import open_pyramid

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
    >>> import h2e.datasets
    >>> h2e.datasets.mob("nowhere")
    Traceback (most recent call last):
    FileNotFoundError: 'nowhere' is not a folder; give the folder with the mob data, or None to download them.
    """
    path = local_folder(folder, "mob")
    if path is None:
        path = fetch(URL, read_registry("mob"), cache_folder() / "mob", progress=progress)
    animals = read_animals(path)
    symbols = read_symbols(path)
    images, shapes, tables = {}, {}, []
    for name, animal in animals.items():
        images[f"{name}_image"] = open_pyramid(find(path, name, f"{name}.jpg"), name, n_levels=N_LEVELS)
        table, xy = read_bulb(path, name, animal)
        shapes[name] = circles(xy, RADIUS_UM / table.obs["um_per_px"].iloc[0], name)
        tables.append(table)
    sdata = assemble(images, shapes, tables)
    table = sdata["table"]
    table.var["gene_id"] = table.var_names
    named = symbols.reindex(table.var_names)
    named[named.isna() | named.duplicated(keep=False)] = table.var_names[named.isna() | named.duplicated(keep=False)]
    table.var_names = pd.Index(named.to_numpy(dtype=object))
    return sdata


def find(folder: Path, name: str, *files: str) -> Path:
    """Find a file of a bulb in any of the layouts."""
    found = locate(folder, *(f"{place.format(name=name)}/{file}" for file in files for place in PLACES))
    if found is None:
        msg = f"{str(folder)!r} has no {' or '.join(files)}. Pass a clone of github.com/jbergenstrahle/STUtility, a "
        msg += f"folder that has it in {name!r}, or None to download."
        raise FileNotFoundError(msg)
    return found


def read_animals(folder: Path) -> dict[str, str]:
    """Read which animal each bulb is of."""
    frame = pd.read_csv(find(folder, ".", "metaData.csv"), sep=";")
    names = frame["samples"].str.extract(r"([^/\\]+)\.tsv", expand=False)
    return dict(sorted(zip(names, frame["individual"].astype(str), strict=True)))


def read_symbols(folder: Path) -> pd.Series:
    """Read the symbols of genes by Ensembl id."""
    frame = pd.read_csv(find(folder, ".", "mouse_genes.tsv.gz"), sep="\t")
    return frame.drop_duplicates("gene_id").set_index("gene_id")["gene_name"]


def read_bulb(folder: Path, name: str, animal: str) -> tuple[AnnData, np.ndarray]:
    """Read the spots of a bulb that are under tissue; returns its table and the centres in pixels."""
    spots = pd.read_csv(find(folder, name, f"alignment_table_{name}.tsv"), sep="\t")
    spots.index = spots["x"].astype(str) + "x" + spots["y"].astype(str)
    array = spots[["y", "x"]].to_numpy()
    step = fit_pitch(spots[["pixel_x", "pixel_y"]].to_numpy(), array)  # of the whole array: more spots, same places
    counts = read_counts(find(folder, name, f"{name}.tsv.gz", f"{name}.tsv"))
    kept = (spots["selected"] == 1) & spots.index.isin(counts.index)
    xy = spots.loc[kept, ["pixel_x", "pixel_y"]].to_numpy(dtype=float)
    table = spot_table(
        counts.loc[spots.index[kept]],
        region=name,
        donor=animal,
        array=array[kept],
        um_per_px=STEP_UM / step,
        names=[f"{name}_{spot}" for spot in spots.index[kept]],
    )
    return table, xy
