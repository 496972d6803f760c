"""A crop of a Visium slide of mouse brain with 49 spots."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np

from h2e._sdata import keys as _keys
from h2e._slide.lattice import VISIUM_UM, lattice
from h2e.datasets._cohort import Section, assemble
from h2e.datasets._fetch import fetch, local_folder, open_pyramid, read_registry, require

if TYPE_CHECKING:
    from spatialdata import SpatialData

URL = "https://raw.githubusercontent.com/scverse/squidpy/be17fcf/"

NAME = "V1_Adult_Mouse_Brain"
N_LEVELS = 3


def visium_mini(folder: str | Path | None = None, *, progress: bool = True) -> SpatialData:
    """A crop of a Visium slide of mouse brain: 49 spots, for trying things out.

    From 10x Genomics' ``V1_Adult_Mouse_Brain`` (CC BY 4.0), cropped for the tests of
    `squidpy <https://github.com/scverse/squidpy>`_.

    Parameters
    ----------
    folder
        Folder with ``test_data.h5ad`` and ``test_img.jpg``, in it, in ``V1_Adult_Mouse_Brain_crop`` or in
        ``tests/_data``. ``None`` takes ``$H2E_DATA/visium_mini`` if that exists, and else downloads 1 MB, once, to
        ``$H2E_CACHE`` (default: the system's cache).
    progress
        Show a progress bar.

    Returns
    -------
    Image ``V1_Adult_Mouse_Brain_image`` at full resolution, circles and coordinate system ``V1_Adult_Mouse_Brain``. The
    table holds 1,999 genes; **its X is log-normalized, there are no counts**. ``obs`` has ``leiden``, a clustering, and
    no array coordinates: the source has none.

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
    >>> sdata = h2e.datasets.visium_mini()  # doctest: +SKIP
    >>> sdata["table"].shape  # doctest: +SKIP
    (49, 1999)
    """
    path = local_folder(folder, "visium_mini")
    path = path or fetch("visium_mini", URL, read_registry("visium_mini"), progress=progress)
    places = ("", f"{NAME}_crop/", "tests/_data/")
    files = ([f"{place}{name}" for place in places] for name in ("test_data.h5ad", "test_img.jpg"))
    source, picture = (require(path, *names, source="scverse/squidpy") for names in files)
    with warnings.catch_warnings():
        # The file was written by an old version, and this one reads it right.
        warnings.simplefilter("ignore", ad.OldFormatWarning)
        adata = ad.read_h5ad(source)
    xy = adata.obsm["spatial"].astype(float)
    table = ad.AnnData(adata.X.tocsr().astype(np.float32), obs=adata.obs[["leiden"]], var=adata.var[["gene_ids"]])
    table.obs = table.obs.assign(region=NAME, instance_id=np.arange(table.n_obs), donor=NAME)
    table.obs[_keys.UM_PER_PX] = VISIUM_UM / lattice(xy)[0]
    (facts,) = adata.uns["spatial"].values()
    radius = facts["scalefactors"]["spot_diameter_fullres"] / 2
    image = open_pyramid(picture, NAME, n_levels=N_LEVELS)
    return assemble([Section(NAME, image, table, xy, radius)])
