"""An ensemble predicts in LazySlide what it predicts in h2e: ``make test-encoders``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

zs = pytest.importorskip("lazyslide", reason="make test-encoders installs lazyslide")

import tifffile  # noqa: E402
import torch  # noqa: E402
from lazyslide_models._utils import get_default_transform  # noqa: E402
from wsidata import open_wsi  # noqa: E402

import h2e  # noqa: E402
from h2e._ensemble.extraction import extract_features  # noqa: E402
from h2e._sdata.cohort import open_cohort  # noqa: E402
from h2e._sdata.keys import Keys  # noqa: E402

PX, UM_PER_PX, MIDDLE = 32, 6.25, (0.5, 0.5, 0.5)


@pytest.mark.filterwarnings("ignore")  # of LazySlide and what it imports
def test_an_ensemble_predicts_a_whole_slide_file_in_lazyslide(tmp_path: Path):
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 16, 16), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    encoder.pretrained_cfg = {"mean": MIDDLE, "std": MIDDLE}
    learner = h2e.tl.Embedding(encoder.eval(), px=PX, um_per_px=UM_PER_PX, tile=0, surroundings=0)
    sdata = h2e.datasets.toy_cohort(n_slides=3, n_donors=3, side=8)
    ensemble = h2e.tl.fit(sdata, learners=learner, group_key="donor", n_targets=3, progress=False)

    new = h2e.datasets.toy_cohort(n_slides=1, n_donors=1, side=12, seed=1)
    pixels = np.moveaxis(new["toy_A1_image"]["scale0"]["image"].values, 0, -1)
    size = {"resolution": (1e4 / UM_PER_PX,) * 2, "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "new.tif", pixels, tile=(256, 256), photometric="rgb", **size)
    wsi, model = open_wsi(tmp_path / "new.tif", store=None, reader="tiffslide"), ensemble.to_lazyslide()
    wsi.set_mpp(UM_PER_PX)
    zs.pp.find_tissues(wsi)
    zs.pp.tile_tissues(wsi, PX, mpp=model.tile_um / PX)
    transform = get_default_transform((PX, PX), mean=MIDDLE, std=MIDDLE)
    plain = {"device": "cpu", "amp": False, "compile": False, "pbar": False}
    zs.tl.feature_extraction(wsi, encoder, model_name="encoder", transform=transform, **plain)
    zs.tl.feature_prediction(wsi, model, feature_key="encoder", compile=False, pbar=False)
    there = wsi.tables["h2e_tiles"].to_df()[list(ensemble.targets)].to_numpy()

    corners = wsi.shapes["tiles"].bounds
    xy = np.column_stack([corners[["minx", "maxx"]].mean(axis=1), corners[["miny", "maxy"]].mean(axis=1)])
    slide = open_cohort(new, Keys()).slides[0]
    slide = replace(slide, xy=xy, rows=np.arange(len(xy)), in_tissue=np.ones(len(xy), bool))
    (features,) = extract_features(slide, [learner], spacing_um=ensemble.spacing_um).values()
    here, _ = ensemble.predict({learner.label: features})
    assert len(there) > 30
    assert (there.std(axis=0) > 0.05).all()
    np.testing.assert_allclose(there, here, atol=1e-4)
