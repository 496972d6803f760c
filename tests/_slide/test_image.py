"""Coarse readings of a pyramid."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from dask.callbacks import Callback

from h2e._slide import image as _image
from h2e._slide.image import Image, read_coarse


class Tasks(Callback):
    """Count the tasks that dask runs."""

    def __init__(self) -> None:
        self.n = 0

    def _pretask(self, key, dsk, state):
        self.n += 1


@pytest.mark.parametrize("side", [2048, 2049, 2050])
def test_a_thin_last_chunk_does_not_set_the_size_of_all(side: int):
    pixels = da.zeros((3, side, side), dtype=np.uint8, chunks=(3, 1024, 1024))
    with Tasks() as tasks:
        picture, scale = read_coarse(Image("slide", (pixels,), (1.0,)), 8)
    assert (scale, picture.shape) == (8, (-(-side // 8), -(-side // 8), 3))
    assert tasks.n < 200


@pytest.mark.parametrize("side", [64, 65, 71])
@pytest.mark.parametrize("chunk", [16, 24, 71])
def test_a_coarse_reading_is_the_mean_of_blocks_however_the_image_is_cut(side: int, chunk: int):
    whole = np.random.default_rng(0).integers(0, 256, (3, side, side), dtype=np.uint8)
    picture, _ = read_coarse(Image("slide", (da.from_array(whole, chunks=(3, chunk, chunk)),), (1.0,)), 4)
    padded = np.pad(whole, [(0, 0), (0, -side % 4), (0, -side % 4)], mode="edge").astype(float)
    blocks = padded.reshape(3, padded.shape[1] // 4, 4, padded.shape[2] // 4, 4).mean(axis=(2, 4))
    np.testing.assert_array_equal(picture, np.floor(blocks + 0.5).astype(np.uint8).transpose(1, 2, 0))


@pytest.mark.parametrize("n_levels", [1, 2])
def test_coarse_readings_decode_an_image_without_coarse_levels_once(monkeypatch: pytest.MonkeyPatch, n_levels: int):
    monkeypatch.setattr(_image, "OVERVIEW_PX", 64)
    seen: list = []

    def look(block: np.ndarray, block_info: dict | None = None) -> np.ndarray:
        seen.append((block.shape, block_info[0]["chunk-location"]))
        return block

    whole = np.random.default_rng(0).integers(0, 256, (3, 400, 300), dtype=np.uint8)
    levels = tuple(
        da.from_array(whole[:, :: 2**k, :: 2**k], chunks=(3, 50, 70)).map_blocks(look, meta=np.empty((0, 0, 0), "u1"))
        for k in range(n_levels)
    )
    image = Image("slide", levels, (1.0, 2.0)[:n_levels])
    seen.clear()
    shapes = [read_coarse(image, scale)[0].shape[:2] for scale in (8, 11, 16, 50)]
    assert shapes == [(50, 38), (50, 38), (25, 19), (9, 7)]
    assert 0 < len(set(seen)) == len(seen)


def test_a_level_that_is_as_coarse_as_the_overview_is_read_itself(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_image, "OVERVIEW_PX", 64)
    levels = tuple(da.full((3, 256 // k, 256 // k), k, dtype=np.uint8) for k in (1, 4, 8))
    image = Image("slide", levels, (1.0, 4.0, 8.0))
    assert [int(read_coarse(image, scale)[0].max()) for scale in (2, 4, 8, 16)] == [1, 4, 8, 8]
    assert "overview" not in vars(image)
