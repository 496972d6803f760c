"""Sections of HER2-positive breast tumours, measured by Spatial Transcriptomics."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from h2e._warnings import log, refuse_if
from h2e.datasets._cohort import Section, assemble, fit_pitch, read_counts, read_spots, spot_table
from h2e.datasets._fetch import fetch, local_folder, locate, open_pyramid, read_registry, require

if TYPE_CHECKING:
    from spatialdata import SpatialData

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
    >>> import h2e
    >>> sdata = h2e.datasets.her2st()  # doctest: +SKIP
    >>> sdata["table"].obs["donor"].value_counts(sort=False).to_dict()  # doctest: +SKIP
    {'A': 346, 'B': 283, 'C': 732}
    """
    from tqdm import tqdm

    if isinstance(sections, str):
        sections = [sections]
    path = local_folder(folder, "her2st")
    if path is None:
        path, sections = download(sections, progress=progress)
    chosen = choose_sections(path, sections)
    bar = tqdm(chosen.items(), disable=not progress, desc="her2st", unit="section")
    parts = [read_section(path, name, picture) for name, picture in bar]
    sdata = assemble(parts)
    table = sdata["table"]
    for tier in TIERS:
        frames = [read_proportions(path, tier, part) for part in parts]
        if any(frame.shape[1] for frame in frames):
            table.obsm[tier] = pd.concat(frames).loc[table.obs_names]
    return sdata


def download(sections: Sequence[str] | None, *, progress: bool) -> tuple[Path, list[str]]:
    """Download sections, by default all six; returns their folder and names."""
    registry = read_registry("her2st")
    known = sorted(Path(path).name.removesuffix(".tsv.gz") for path in registry if "/ST-cnts/" in path)
    wanted = known if sections is None else list(sections)
    unknown = sorted(set(wanted) - set(known))
    msg = f"sections {unknown} cannot be downloaded, {known} can; clone github.com/almaan/her2st for the others."
    refuse_if(unknown, msg)
    others = [f"/{name}" for name in known if name not in wanted]
    wanted_files = {path: sha for path, sha in registry.items() if not any(other in path for other in others)}
    return fetch("her2st", URL, wanted_files, progress=progress), wanted


def choose_sections(folder: Path, sections: Sequence[str] | None) -> dict[str, Path]:
    """Images of the sections to read, sorted by name; explain what is missing."""
    counts = {path.name.split(".")[0] for path in folder.glob("data/ST-cnts/*.tsv*")}
    spots = {path.name.split("_")[0] for path in folder.glob("data/ST-spotfiles/*_selection.tsv")}
    complete = {name: picture for name in sorted(counts & spots) if (picture := find_image(folder, name))}
    needed = "data/ST-cnts/X.tsv.gz, data/ST-spotfiles/X_selection.tsv and data/ST-imgs/{donor}/X/*.jpg"
    msg = f"{str(folder)!r} has no complete section: each needs {needed}. Pass a clone of almaan/her2st, or None."
    refuse_if(not complete, msg, FileNotFoundError)
    if sections is None and (partial := sorted((counts | spots) - set(complete))):
        log.info("sections %s lack counts, spots or image and are left out", partial)
    chosen = list(complete if sections is None else sections)
    msg = f"sections {chosen} were asked for; {str(folder)!r} has {list(complete)} whole; choose from it."
    refuse_if(not chosen or set(chosen) - set(complete), msg)
    return {name: picture for name, picture in complete.items() if name in chosen}


def find_image(folder: Path, section: str) -> Path | None:
    """Find the H&E of a section: the full-resolution one, or the reduced one of the source's app."""
    place = f"data/ST-imgs/{section[0]}/{section}"
    patterns = [f"{place}/{tag}.{end}" for tag in ("*HE*", "*") for end in ("jpg", "jpeg", "png", "tif")]
    if section in REDUCED_FROM:
        patterns.append(f"app/www/imgs/{section}_HE_image_dark.png")
    return locate(folder, *patterns)


def read_section(folder: Path, section: str, picture: Path) -> Section:
    """Read the image of a section, and its selected spots that have counts."""
    from PIL import Image

    spots = read_spots(folder / f"data/ST-spotfiles/{section}_selection.tsv")
    files = [f"data/ST-cnts/{section}.tsv.gz", f"data/ST-cnts/{section}.tsv"]
    counts = read_counts(require(folder, *files, source="almaan/her2st"))
    spots = spots[(spots["selected"] == 1) & spots.index.isin(counts.index)]
    msg = f"section {section!r} must have 3 selected spots with counts, got {len(spots)}; is its spot file right?"
    refuse_if(len(spots) < 3, msg)
    xy = spots[["pixel_x", "pixel_y"]].to_numpy(dtype=float)
    if "app" in picture.relative_to(folder).parts:
        with Image.open(picture) as opened:
            xy *= opened.width / REDUCED_FROM[section]
    um_per_px = PITCH_UM / fit_pitch(xy, spots[["y", "x"]].to_numpy())
    table = spot_table(counts.loc[spots.index], spots, region=section, donor=section[0], um_per_px=um_per_px)
    if labels := locate(folder, f"data/ST-pat/lbl/{section}_labeled_coordinates.tsv"):
        table.obs["pathologist"] = read_labels(labels, spots.index)
    image = open_pyramid(picture, section, n_levels=N_LEVELS)
    return Section(section, image, table, xy, RADIUS_UM / um_per_px)


def read_labels(path: Path, spots: pd.Index) -> np.ndarray:
    """Read what the pathologist called each spot; the file has adjusted array coordinates."""
    frame = pd.read_csv(path, sep="\t").dropna(subset=["x", "y"])
    frame.index = frame["x"].round().astype(int).astype(str) + "x" + frame["y"].round().astype(int).astype(str)
    return frame.loc[~frame.index.duplicated(), "label"].reindex(spots).to_numpy(dtype=object)


def read_proportions(folder: Path, tier: str, section: Section) -> pd.DataFrame:
    """Read the cell-type proportions of a section's spots; without columns if there are none."""
    spots = section.table.obs_names.str.removeprefix(f"{section.name}_")
    frame = pd.DataFrame(index=spots)
    if archive := locate(folder, f"res/ST-deconv/props/{tier}.zip"):
        with zipfile.ZipFile(archive) as opened:
            for member in opened.namelist():
                if Path(member).name == f"{section.name}-proportion.tsv":
                    frame = pd.read_csv(opened.open(member), sep="\t", index_col=0).reindex(spots)
    # Keys of zarr cannot hold a slash.
    frame.columns = [str(column).strip().replace("/", "-") for column in frame.columns]
    return frame.astype(np.float32).set_axis(section.table.obs_names)
