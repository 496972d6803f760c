"""Where public data come from: a folder that is there, or a download with checksums into a cache."""

from __future__ import annotations

import hashlib
import logging
import os
import zipfile
from importlib import resources
from pathlib import Path

log = logging.getLogger(__name__)

ARCHIVE_MEMBER = "!"
"""In a registry ``archive.zip!member`` gives the checksum of a member: an archive may hold more than was looked at."""


def cache_folder() -> Path:
    """Name the folder for downloads and converted images: ``$H2E_CACHE``, or the system's place for caches."""
    import pooch

    return Path(os.environ.get("H2E_CACHE") or pooch.os_cache("h2e"))


def local_folder(folder: str | Path | None, name: str) -> Path | None:
    """Choose the folder to read: the one asked for, else ``$H2E_DATA/name`` if that is there, else ``None``."""
    if folder is not None:
        path = Path(folder).expanduser()
        if not path.is_dir():
            msg = f"{str(path)!r} is not a folder; give the folder with the {name} data, or None to download them."
            raise FileNotFoundError(msg)
        return path
    if not (root := os.environ.get("H2E_DATA")):
        return None
    path = Path(root).expanduser() / name
    if not path.is_dir():
        log.info("$H2E_DATA has no folder %r: %s is downloaded", name, name)
        return None
    return path


def locate(folder: Path, *patterns: str) -> Path | None:
    """Find the first file that matches one of some patterns, in the order of the patterns."""
    return next((path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()), None)


def read_registry(name: str) -> dict[str, str]:
    """Read the checksums of a data set: paths below the base address, and their sha256."""
    lines = (resources.files("h2e.datasets") / f"{name}.sha256").read_text().splitlines()
    return {path: checksum for checksum, path in (line.split(maxsplit=1) for line in lines if line)}


def fetch(base_url: str, registry: dict[str, str], folder: Path, *, progress: bool = True) -> Path:
    """Download the files of a registry that are not in a folder yet; every file there has the checksum asked for.

    Parameters
    ----------
    base_url
        Address below which the files are; at a fixed commit.
    registry
        sha256 by path, or by ``archive.zip!member``.
    folder
        Where the files go, laid out as at their source.
    progress
        Show a progress bar.
    """
    import pooch
    from tqdm import tqdm

    plain = {path: f"sha256:{checksum}" for path, checksum in registry.items() if ARCHIVE_MEMBER not in path}
    archives = {path.partition(ARCHIVE_MEMBER)[0]: None for path in registry if ARCHIVE_MEMBER in path}
    store = pooch.create(folder, base_url.rstrip("/") + "/", registry=plain | archives)
    missing = [path for path in store.registry if not (folder / path).exists()]
    if missing:
        log.info("downloading %d files from %s to %s", len(missing), base_url, folder)
    messages = pooch.get_logger()
    level = messages.level
    messages.setLevel(logging.WARNING)  # one bar over all files says enough
    try:
        for path in tqdm(sorted(store.registry), disable=not (progress and missing), desc=folder.name, unit="file"):
            fetch_one(store, path)
    finally:
        messages.setLevel(level)
    for path, checksum in registry.items():
        if ARCHIVE_MEMBER in path:
            check_member(folder, path, checksum)
    return folder


def fetch_one(store: object, path: str) -> None:
    """Download a file, or find it; explain what to do where that fails."""
    from requests import RequestException

    try:
        store.fetch(path)
    except ValueError as error:
        msg = f"{store.get_url(path)} is not the file that h2e knows: its sha256 is another, so it is not used. Try "
        msg += "again later, or download the data by hand and pass their folder."
        raise ValueError(msg) from error
    except (RequestException, OSError) as error:
        msg = f"{store.get_url(path)} cannot be downloaded to {store.path} ({error}). Without a network, pass the "
        msg += "folder of a copy, or set $H2E_DATA to the folder above it."
        raise OSError(msg) from error


def check_member(folder: Path, path: str, checksum: str) -> None:
    """Compare a member of an archive with its checksum; an archive that differs is removed."""
    archive, _, member = path.partition(ARCHIVE_MEMBER)
    try:
        with zipfile.ZipFile(folder / archive) as opened:
            found = hashlib.sha256(opened.read(member)).hexdigest()
    except (zipfile.BadZipFile, KeyError):
        found = "missing"
    if found != checksum:
        (folder / archive).unlink()
        msg = f"{member!r} in the downloaded {archive!r} is not the file that h2e knows (sha256 {found}, not "
        msg += f"{checksum}); the archive was removed. Try again later, or download the data by hand and pass their "
        msg += "folder."
        raise ValueError(msg)
