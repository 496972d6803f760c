"""Arguments that commands share, and how samples are opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from h2e.cli.call import Call
from h2e.cli.log import Lines
from h2e.cli.sheet import Sample

FLOAT = click.FloatRange(min=0, min_open=True)


def together(*options: Callable) -> Callable:
    """Several options as one decorator."""

    def decorate(function: Callable) -> Callable:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _connect(ctx: click.Context, _: click.Parameter, address: str | None) -> None:
    """Have the tasks of h2e run on a cluster."""
    if address:
        from distributed import Client

        ctx.with_resource(Client(address))


def _as_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001
    """Log in JSON."""
    lines_of(ctx).use_json(value)


def lines_of(ctx: click.Context | None = None) -> Lines:
    """The log of the command that runs."""
    return (ctx or click.get_current_context()).find_root().obj


common = together(
    click.argument("inputs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path)),
    click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of results."),
    click.option("--um-per-px", type=FLOAT, help="µm per pixel of the finest level, where nothing else tells it."),
    click.option("--image-key", metavar="NAME", help="Image of a store to use, where several could be meant."),
    click.option("--table-key", metavar="NAME", help="Table of the spots in a store.  [default: table]"),
    click.option(
        "--cluster", envvar="DASK_SCHEDULER_ADDRESS", metavar="ADDRESS", expose_value=False, callback=_connect,
        help="Scheduler of dask.distributed; also in $DASK_SCHEDULER_ADDRESS.",
    ),
    click.option(
        "--json", is_flag=True, expose_value=False, callback=_as_json, help="Log one JSON object a line, no bars."
    ),
)  # fmt: skip
"""What all commands take that read slides."""


def opening(sample: Sample) -> Call:
    """The call that reads a sample."""
    path, name = sample.path, sample.name
    if path.suffix == ".h5ad":
        return Call("anndata.read_h5ad", str(path))
    if path.is_file():
        size = {} if sample.um_per_px is None else {"um_per_px": sample.um_per_px}
        return Call("h2e.datasets.read_slide", str(path), name=name, **size)
    if path.suffix == ".zarr" or (path / "zarr.json").exists():
        return Call("spatialdata.read_zarr", str(path))
    for folder in (path, path / "outs"):
        if (folder / "spatial").is_dir():
            full = {} if sample.image is None else {"fullres_image_file": sample.image}
            return Call("spatialdata_io.visium", str(folder), dataset_id=name, **full)
    msg = f"{path} must be a store of SpatialData (.zarr), a folder of Space Ranger for Visium, with spatial/ in it or "
    msg += "in its outs/, an AnnData (.h5ad) or a whole-slide file; read other formats in Python and write a store."
    raise ValueError(msg)


def keys_of(call: Call, sample: Sample) -> dict[str, Any]:
    """What was said of a sample and was not used to read it."""
    image = None if "fullres_image_file" in call.options else sample.image
    size = None if call.function.endswith("read_slide") else sample.um_per_px
    return {key: value for key, value in {"image_key": image, "um_per_px": size}.items() if value is not None}
