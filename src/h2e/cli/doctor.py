"""``h2e doctor``: what is installed, what it runs on, and whether it works."""

from __future__ import annotations

import json
import platform
import time
from importlib.metadata import distributions, requires

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, a line for each part.")
@click.pass_context
def doctor(context: click.Context, /, *, as_json: bool) -> None:
    """Print versions, devices, encoders and data, and try h2e on a small synthetic cohort."""
    context.obj.setLevel("ERROR")
    for part, find in {"versions": _versions, "machine": _machine, "self-test": _self_test}.items():
        found = find()
        text = [part, *(f"  {key:<18}{value}" for key, value in found.items())]
        click.echo(json.dumps({part: found}) if as_json else "\n".join(text))


def _versions() -> dict[str, str]:
    """Versions of h2e and of what it needs, also for its extras, and of the readers of Space Ranger's and other folders."""
    installed = {one.name.lower().replace("_", "-"): one.version for one in distributions()}
    names = ["h2e", *(one.partition(">")[0] for one in requires("h2e") or ()), "spatialdata-io"]
    return {"python": platform.python_version()} | {name: installed.get(name, "not installed") for name in names}


def _machine() -> dict[str, str]:
    """What is computed on, which encoders there are, and where public data are."""
    import torch
    from dask.system import cpu_count

    from h2e import tl
    from h2e._learners.training import find_device, mixed_precision
    from h2e.datasets._fetch import cache_folder, local_folder

    device, encoders, names = find_device(None), tl.list_encoders()["installed"], ("her2st", "mob", "visium_mini")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    places = [place for name in names for place in (local_folder(None, name), cache_folder() / name)]
    return {
        "system": f"{platform.platform()}, {cpu_count()} cores",
        "GPUs": ", ".join([*gpus, *["mps"] * torch.backends.mps.is_available()]) or "none",
        "networks": f"on {device}, in {'bfloat16' if isinstance(mixed_precision(device), torch.autocast) else 'float32'}",
        "named encoders": f"{encoders.sum()} of {len(encoders)} installed; more with h2e[encoders]",
        "data": ", ".join(str(place) for place in places if place and place.is_dir()) or "none in $H2E_DATA or cache",
    }


def _self_test() -> dict[str, str]:
    """Prepare, learn from and predict a small synthetic cohort; shuffled predictions would have a Pearson of 0."""
    from h2e import datasets, metrics, pp, tl

    started, sdata = time.perf_counter(), datasets.toy_cohort(n_slides=3, side=7)
    pp.normalize(sdata, progress=False)
    ensemble = tl.fit(sdata, learners="texture", n_targets=4, group_key="donor", progress=False)
    tl.predict(sdata, ensemble, progress=False)
    scores = metrics.score_adata(sdata["table"], key="h2e_loo", metrics="pearson")
    if not (pearson := scores["value"].mean(skipna=False)) > 0.3:
        msg = f"predictions of toy donors that no model saw must have a Pearson above 0.3, got {pearson:.2f}."
        raise click.ClickException(msg)
    return {"ok": f"Pearson {pearson:.2f} on donors that no model saw, in {time.perf_counter() - started:.1f} s"}
