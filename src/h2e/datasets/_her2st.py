"""Sections of HER2-positive breast tumours, measured by Spatial Transcriptomics."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Sequence
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

log = logging.getLogger(__name__)

URL = "https://raw.githubusercontent.com/almaan/her2st/85df7411b987a7dec3feff9718b869a7a82091ec/"

PITCH_UM, RADIUS_UM = 200.0, 50.0
N_LEVELS = 5

REDUCED_FROM = {"A1": 6954}
"""Width in pixels of the full-resolution image, to which the coordinates belong, where the app has a reduced one."""

TIERS = ("major", "minor", "subset")


def her2st(
    folder: str | Path | None = None, *, sections: Sequence[str] | None = None, progress: bool = True
) -> SpatialData:
    """Sections of HER2-positive breast tumours as one lazy cohort.

    Spatial Transcriptomics with 100 µm spots every 200 µm, published by Andersson et al., Nature Communications 2021,
    `doi:10.1038/s41467-021-26271-2 <https://doi.org/10.1038/s41467-021-26271-2>`_, CC BY 4.0. Six sections of three
    donors are downloaded; a folder may hold any of the 36.

    Parameters
    ----------
    folder
        Folder laid out like the source, `github.com/almaan/her2st <https://github.com/almaan/her2st>`_. ``None``
        takes ``$H2E_DATA/her2st`` if that exists, and else downloads about 27 MB, once, to ``$H2E_CACHE`` (default:
        the system's cache).
    sections
        Names such as ``"A1"``; the letter is the donor. ``None`` takes all that are in the folder with image, counts
        and spots, or all six that can be downloaded.
    progress
        Show progress bars.

    Returns
    -------
    Per section ``X``: image ``X_image`` (a lazy pyramid of five levels in chunks of 1,024 pixels, cut at the right and
    bottom to a multiple of 16), circles ``X`` and coordinate system ``X``, in pixels of the image. A JPEG cannot be
    read in parts: the first call converts each to zarr in the cache (some 70 MB a section).

    One table of the selected spots that have counts, named ``{section}_{x}x{y}``: sparse counts over the union of the
    genes (a section's file lists the genes seen there, so that a gene it does not list has the count 0), ``obs``
    columns ``region``, ``instance_id``, ``donor``, ``array_row``, ``array_col``, ``um_per_px`` and, where the folder
    has it, ``pathologist``; cell-type proportions in ``obsm``: ``major``, ``minor`` and ``subset``, with ``-`` for
    ``/`` in their names, NaN for spots without.

    Notes
    -----
    Section A1 has no full-resolution image at the source: it is 2,000 pixels wide, the tissue is cut out on black, and
    a thumbnail with annotations covers its upper right corner.

    Raises
    ------
    FileNotFoundError
        The folder has no complete section.
    OSError
        A file cannot be downloaded.
    ValueError
        A section is not there, or a file is not the one that h2e knows.

    Examples
    --------
    >>> import h2e.datasets
    >>> h2e.datasets.her2st("nowhere")
    Traceback (most recent call last):
    FileNotFoundError: 'nowhere' is not a folder; give the folder with the her2st data, or None to download them.
    """
    from tqdm import tqdm

    if isinstance(sections, str):
        sections = [sections]
    path = local_folder(folder, "her2st")
    if path is None:
        path, sections = download(sections, progress=progress)
    names = choose_sections(path, sections)
    images, shapes, tables = {}, {}, []
    proportions: dict[str, list[pd.DataFrame]] = {tier: [] for tier in TIERS}
    for name in tqdm(names, disable=not progress, desc="her2st", unit="section"):
        picture = find_image(path, name)
        images[f"{name}_image"] = open_pyramid(picture, name, n_levels=N_LEVELS)
        table, xy = read_section(path, name, picture)
        shapes[name] = circles(xy, RADIUS_UM / table.obs["um_per_px"].iloc[0], name)
        tables.append(table)
        for tier in TIERS:
            proportions[tier].append(read_proportions(path, tier, table))
    sdata = assemble(images, shapes, tables)
    for tier, frames in proportions.items():
        if any(frame.shape[1] for frame in frames):
            sdata["table"].obsm[tier] = pd.concat(frames).loc[sdata["table"].obs_names]
    return sdata


def download(sections: Sequence[str] | None, *, progress: bool) -> tuple[Path, list[str]]:
    """Download some of the six sections; returns where they are, and which."""
    registry = read_registry("her2st")
    known = sorted(
        path.removeprefix("data/ST-cnts/").removesuffix(".tsv.gz") for path in registry if "/ST-cnts/" in path
    )
    wanted = known if sections is None else list(sections)
    if unknown := sorted(set(wanted) - set(known)):
        msg = f"sections {unknown} cannot be downloaded, {known} can. For the others clone github.com/almaan/her2st "
        msg += "and pass its folder."
        raise ValueError(msg)
    others = [f"/{name}" for name in known if name not in wanted]
    wanted_files = {path: sha for path, sha in registry.items() if not any(other in path for other in others)}
    return fetch(URL, wanted_files, cache_folder() / "her2st", progress=progress), wanted


def choose_sections(folder: Path, sections: Sequence[str] | None) -> list[str]:
    """Name the sections to read, sorted; explain what is missing."""
    counts = {path.name.split(".")[0] for path in folder.glob("data/ST-cnts/*.tsv*")}
    spots = {path.name.split("_")[0] for path in folder.glob("data/ST-spotfiles/*_selection.tsv")}
    complete = sorted(name for name in counts & spots if find_image(folder, name))
    if not complete:
        msg = f"{str(folder)!r} has no complete section: each needs data/ST-cnts/X.tsv.gz, "
        msg += "data/ST-spotfiles/X_selection.tsv and an image data/ST-imgs/{donor}/X/*.jpg. Pass a clone of "
        msg += "github.com/almaan/her2st, or None to download."
        raise FileNotFoundError(msg)
    if sections is None:
        if partial := sorted((counts | spots) - set(complete)):
            log.info("sections %s lack counts, spots or image and are left out", partial)
        return complete
    if not sections or set(sections) - set(complete):
        msg = f"sections {list(sections)} were asked for; {str(folder)!r} has {complete} with image, counts and "
        msg += "spots. Choose from these."
        raise ValueError(msg)
    return sorted(set(sections))


def find_image(folder: Path, section: str) -> Path | None:
    """Find the H&E of a section: the full-resolution one, or the reduced one of the source's app."""
    place = f"data/ST-imgs/{section[0]}/{section}"
    found = locate(folder, *(f"{place}/{tag}.{end}" for tag in ("*HE*", "*") for end in ("jpg", "jpeg", "png", "tif")))
    if found is None and section in REDUCED_FROM:
        return locate(folder, f"app/www/imgs/{section}_HE_image_dark.png")
    return found


def read_section(folder: Path, section: str, picture: Path) -> tuple[AnnData, np.ndarray]:
    """Read the selected spots of a section that have counts; returns its table and the centres in pixels."""
    from PIL import Image

    spots = pd.read_csv(folder / f"data/ST-spotfiles/{section}_selection.tsv", sep="\t")
    spots = spots[spots["selected"] == 1]
    spots.index = spots["x"].astype(str) + "x" + spots["y"].astype(str)
    counts = read_counts(locate(folder, f"data/ST-cnts/{section}.tsv.gz", f"data/ST-cnts/{section}.tsv"))
    spots = spots[spots.index.isin(counts.index)]
    if len(spots) < 3:
        msg = f"section {section!r} has {len(spots)} selected spots with counts; is its spot file that of its counts?"
        raise ValueError(msg)
    xy = spots[["pixel_x", "pixel_y"]].to_numpy(dtype=float)
    if "app" in picture.relative_to(folder).parts:
        with Image.open(picture) as opened:
            xy *= opened.width / REDUCED_FROM[section]
    array = spots[["y", "x"]].to_numpy()
    table = spot_table(
        counts.loc[spots.index],
        region=section,
        donor=section[0],
        array=array,
        um_per_px=PITCH_UM / fit_pitch(xy, array),
        names=[f"{section}_{name}" for name in spots.index],
    )
    if labels := locate(folder, f"data/ST-pat/lbl/{section}_labeled_coordinates.tsv"):
        table.obs["pathologist"] = read_labels(labels, spots.index)
    return table, xy


def read_labels(path: Path, spots: pd.Index) -> np.ndarray:
    """Read what the pathologist called each spot; the file has adjusted array coordinates."""
    frame = pd.read_csv(path, sep="\t").dropna(subset=["x", "y"])
    frame.index = frame["x"].round().astype(int).astype(str) + "x" + frame["y"].round().astype(int).astype(str)
    return frame.loc[~frame.index.duplicated(), "label"].reindex(spots).to_numpy(dtype=object)


def read_proportions(folder: Path, tier: str, table: AnnData) -> pd.DataFrame:
    """Read the cell-type proportions of a section's spots; without columns if there are none."""
    section = table.obs["region"].iloc[0]
    names = table.obs_names.str.removeprefix(f"{section}_")
    frame = pd.DataFrame(index=names)
    archive = folder / f"res/ST-deconv/props/{tier}.zip"
    if archive.exists():
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.namelist() if Path(member).name == f"{section}-proportion.tsv"]
            if members:
                frame = pd.read_csv(opened.open(members[0]), sep="\t", index_col=0).reindex(names)
    frame.columns = [str(column).strip().replace("/", "-") for column in frame.columns]  # zarr keys cannot hold a slash
    return frame.astype(np.float32).set_axis(table.obs_names)
