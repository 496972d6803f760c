"""Arguments that commands share, and how samples are opened."""

from __future__ import annotations

from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import click

from h2e.cli.record import arguments
from h2e.cli.sheet import Sample

FOLDER = click.Path(file_okay=False, path_type=Path)

COMMON: list[click.Parameter] = [
    click.Argument(["inputs"], nargs=-1, required=True, type=click.Path(exists=True, path_type=Path)),
    click.Option(["--out"], required=True, type=FOLDER, help="Folder of results."),
    click.Option(["--um-per-px"], type=click.FloatRange(0, min_open=True), help="µm per pixel, where nothing else tells."),
    click.Option(["--image-key"], metavar="NAME", help="Image of a store to use, where several could be meant."),
    click.Option(["--cluster"], envvar="DASK_SCHEDULER_ADDRESS", show_envvar=True, metavar="ADDRESS", expose_value=False,
                 callback=lambda ctx, _, at: at and ctx.with_resource(resolve_name("distributed.Client")(at)),
                 help="Scheduler of dask.distributed."),
    click.Option(["--json"], is_flag=True, expose_value=False, help="Log one JSON object a line, without bars.",
                 callback=lambda ctx, _, value: setattr(ctx.obj, "json", value)),
]  # fmt: skip
"""What all commands take that read slides."""


def read(sample: Sample) -> tuple[Any, list[str], float | None]:
    """A sample as SpatialData, the Python for it, and the size of a pixel that is still to be said."""
    name, path, _, size, image = sample
    options: dict[str, Any] = {}
    ranger = [folder for folder in (path, path / "outs") if (folder / "spatial").is_dir()]
    if path.suffix == ".h5ad":
        function = "anndata.read_h5ad"
    elif path.is_file():
        function, options = "h2e.datasets.read_slide", {"name": name, "um_per_px": size} if size else {"name": name}
        size = None
    elif path.suffix == ".zarr" or (path / "zarr.json").exists():
        function = "spatialdata.read_zarr"
    elif ranger:
        function, path, options = "spatialdata_io.visium", ranger[0], {"dataset_id": name}
        options |= {"fullres_image_file": image} if image and Path(image).is_file() else {}
    else:
        msg = f"{path} must be a store of SpatialData (.zarr), a folder of Space Ranger for Visium (with spatial/, or it in "
        msg += "outs/), an AnnData (.h5ad) or a whole-slide file; of other formats write a store in Python."
        raise ValueError(msg)
    sdata, code = resolve_name(function)(str(path), **options), f"{function}({str(path)!r}{arguments(options)})"
    if function == "anndata.read_h5ad":
        sdata, code = resolve_name("h2e.pp.join_slides")({name: sdata}), f"h2e.pp.join_slides({{{name!r}: {code}}})"
    python = [f"sdata = {code}"]
    if image and "fullres_image_file" not in options:
        resolve_name("h2e._sdata.images.check_image_key")(sdata, image)
        for key in set(sdata.images) - {image}:
            del sdata.images[key]
        python.append(f"for key in set(sdata.images) - {{{image!r}}}:\n    del sdata.images[key]")
    return sdata, python, size
