"""Data read by ``spatialdata_io.visium``: full-resolution, hires and lowres images, no "global" coordinate system."""

from __future__ import annotations

import json
import re
from pathlib import Path

import h5py
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import tifffile
from PIL import Image
from scipy import sparse
from scipy.spatial import KDTree
from spatialdata_io import visium

import h2e
from h2e._sdata.keys import Keys
from h2e._sdata.scale import require_size
from h2e._sdata.slides import open_slides, require_inside
from h2e._slide.tiles import View


def find_slides(sdata, **keys):
    """Open slides of known size with all spots on their images."""
    return require_size(require_inside(open_slides(sdata, Keys(**keys))))


mpl.use("agg")

LEARNER = h2e.tl.Texture(views=(View(2, 32),))
PITCH = 24.0  # pixels of the full-resolution image


def write_space_ranger(folder: Path, toy: sd.SpatialData, region: str) -> None:
    """Write one synthetic slide the way Space Ranger 2 does: a hexagonal array, counts in HDF5, three images."""
    pixels = toy.images[f"{region}_image"]["scale0"]["image"].data.compute().transpose(1, 2, 0)
    rows, columns = (a.ravel() for a in np.mgrid[0:18, 0:32])
    use = (rows + columns) % 2 == 0
    rows, columns = rows[use], columns[use]
    xy = np.column_stack([20 + columns * PITCH / 2, 20 + rows * PITCH * np.sqrt(3) / 2])
    table = toy["table"][toy["table"].obs["region"] == region]
    shapes = toy.shapes[region].loc[table.obs["instance_id"]]
    near = KDTree(np.column_stack([shapes.geometry.x, shapes.geometry.y])).query(xy)[1]
    counts = sparse.csr_matrix(table.X[near]).astype(np.int32)
    barcodes = [f"{i:016d}-1".replace("0", "A") for i in range(len(xy))]
    spatial = folder / "spatial"
    spatial.mkdir(parents=True)
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "w") as file:
        matrix = file.create_group("matrix")
        for key in ("data", "indices", "indptr"):
            matrix[key] = getattr(counts, key)
        matrix["shape"] = np.array(counts.shape[::-1], np.int32)  # genes × spots, by column
        matrix["barcodes"] = np.array(barcodes, "S")
        features = matrix.create_group("features")
        features["id"] = features["name"] = np.array(table.var_names, "S")
        for key, value in {"feature_type": "Gene Expression", "genome": "toy"}.items():
            features[key] = np.array([value] * table.n_vars, "S")
    positions = pd.DataFrame(
        {"barcode": barcodes, "in_tissue": 1, "array_row": rows, "array_col": columns}
        | {"pxl_row_in_fullres": xy[:, 1], "pxl_col_in_fullres": xy[:, 0]}
    )
    positions.to_csv(spatial / "tissue_positions.csv", index=False)
    scales = {"spot_diameter_fullres": PITCH * 0.55, "tissue_hires_scalef": 0.5, "tissue_lowres_scalef": 0.125}
    (spatial / "scalefactors_json.json").write_text(json.dumps(scales | {"fiducial_diameter_fullres": PITCH}))
    picture = Image.fromarray(pixels)
    for name, factor in {"hires": 2, "lowres": 8}.items():
        picture.reduce(factor).save(spatial / f"tissue_{name}_image.png")
    tifffile.imwrite(folder / "full.tif", pixels)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, cohort_source) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("visium")
    regions = {"S1": "toy_A1", "S2": "toy_B1", "S3": "toy_C1"}
    for name, region in regions.items():
        write_space_ranger(root / name, cohort_source, region)
    return {name: root / name for name in regions}


def read(folders: dict[str, Path], **kwargs) -> sd.SpatialData:
    slides = [visium(path, dataset_id=name, **kwargs) for name, path in folders.items()]
    return sd.concatenate(slides, concatenate_tables=True)


# The reader warns of its own affairs: https://github.com/scverse/spatialdata-io
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
    pytest.mark.usefixtures("quick_models"),
]


def test_the_finest_image_is_taken_and_the_pitch_of_visium_gives_the_scale(folders):
    sdata = read(folders, fullres_image_file="full.tif")
    assert "global" not in sdata.coordinate_systems
    slides = find_slides(sdata)
    assert [s.image.key for s in slides] == [f"{n}_full_image" for n in folders]
    for slide in slides:
        assert slide.spacing_px == pytest.approx(PITCH)
        assert slide.um_per_px == pytest.approx(100 / PITCH, rel=0.005)
        assert slide.radius_px == pytest.approx(PITCH * 0.275)


def test_without_the_full_resolution_image_hires_is_taken_at_the_same_places(folders):
    hires, full = find_slides(read(folders)), find_slides(read(folders, fullres_image_file="full.tif"))
    assert [s.image.key for s in hires] == [f"{n}_hires_image" for n in folders]
    for a, b in zip(hires, full, strict=True):
        np.testing.assert_allclose(2 * a.xy, b.xy)
        assert a.um_per_px == pytest.approx(2 * b.um_per_px, rel=0.005)


def test_the_five_lines_run(folders):
    import matplotlib.pyplot as plt

    names = list(folders)
    sdata = read({name: folders[name] for name in names[:2]}, fullres_image_file="full.tif")
    new = visium(folders[names[2]], dataset_id=names[2], fullres_image_file="full.tif")
    h2e.pp.normalize(sdata)
    ensemble = h2e.tl.fit(sdata, group_key="region", learners=LEARNER, n_targets=10, progress=False)
    h2e.tl.predict(new, ensemble, progress=False)
    axes = h2e.pl.spatial_pred(new, ensemble.targets[:2])
    assert len(np.ravel(axes)) == 4
    plt.close("all")
    table = new["table"]
    predicted = table.obsm["h2e"].dropna()
    assert len(predicted) > 0.5 * table.n_obs
    measured = np.log1p(table.to_df().div(table.to_df().sum(axis=1), axis=0) * 1e4)
    r = [np.corrcoef(predicted[g], measured.loc[predicted.index, g])[0, 1] for g in ensemble.targets]
    assert np.mean(r) > 0.2


def test_the_quickstart_leads_from_folders_of_ones_own_to_a_map(folders, monkeypatch, tmp_path):
    import matplotlib.pyplot as plt

    page = (Path(__file__).parents[1] / "tutorials" / "quickstart.md").read_text(encoding="utf-8")
    single, lines = re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    reading, using = lines.split("\n\nh2e.pp.normalize")
    for number, folder in enumerate(folders.values(), start=1):
        (tmp_path / f"outs_{number}").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outs").symlink_to(folders["S1"])
    names = {"h2e": h2e, "print": lambda *_: None}
    exec(single.replace("fit(slide)", 'fit(slide, learners="mean", n_targets=4)'), names)
    assert names["slide"]["table"].obsm["h2e_loo"].notna().all(axis=1).mean() > 0.5
    exec(reading.replace("image.tif", "full.tif"), names)
    assert [slide.image.key for slide in find_slides(names["sdata"])] == [f"slide_{i}_full_image" for i in (1, 2, 3)]
    exec(f"h2e.pp.normalize{using}".replace('"donor")', '"donor", learners="mean", n_targets=4)'), names)  # quickly
    assert set(names["scores"]["group"]) == {"donor A", "donor B"}
    assert names["sdata"]["table"].obsm["h2e_loo"].notna().all(axis=1).mean() > 0.5
    plt.close("all")


def test_a_hires_image_predicts_what_the_full_resolution_predicts(folders):
    sdata = read(folders, fullres_image_file="full.tif")
    genes = ["TOY01", "TOY02", "TOY03"]
    wide = h2e.tl.Texture(views=(View(4, 32),))  # 96 pixels at full resolution, 48 at hires: both have enough
    ensemble = h2e.tl.fit(sdata, group_key="region", learners=wide, targets=genes, progress=False)
    h2e.tl.predict(sdata, ensemble, in_sample=True, progress=False)
    full = sdata["table"].obsm["h2e"].copy()
    h2e.tl.predict(
        sdata, ensemble, in_sample=True, image_key={name: f"{name}_hires_image" for name in folders}, progress=False
    )
    hires = sdata["table"].obsm["h2e"]
    both = full.notna().all(axis=1) & hires.notna().all(axis=1)
    assert both.mean() > 0.5
    for gene in genes:
        assert np.corrcoef(full.loc[both, gene], hires.loc[both, gene])[0, 1] > 0.95
