from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import zarr

from h2e._slide import windows as _windows
from h2e._slide.image import Image
from h2e._slide.tiles import read_windows

SIDE = 30


def picture(height: int = 300, width: int = 300) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, height, width), dtype=np.uint8)


def corners(n: int = 60) -> np.ndarray:
    return np.random.default_rng(1).integers(-10, 280, (n, 2))


def windows_of(level: da.Array) -> np.ndarray:
    return read_windows(Image("slide", (level,), (1.0,)), 0, corners(), SIDE)


def expected(whole: np.ndarray) -> np.ndarray:
    padded = np.pad(whole, ((0, 0), (SIDE, SIDE), (SIDE, SIDE)), mode="edge")
    return np.stack([padded[:, y : y + SIDE, x : x + SIDE] for x, y in corners() + SIDE])


class Calls(Counter):
    """Counts calls from several threads."""

    lock = threading.Lock()

    def see(self, key: object) -> None:
        with self.lock:
            self[key] += 1


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_windows, "BATCH_BYTES", 2 * 3 * 32 * 32)


def file_as_one_task(whole: np.ndarray, calls: Calls) -> da.Array:
    def decode() -> np.ndarray:
        calls.see("file")
        return np.moveaxis(whole, 0, -1)

    pixels = da.from_delayed(dask.delayed(decode)(), (*whole.shape[1:], 3), dtype=np.uint8)
    return pixels.transpose(2, 0, 1).rechunk((3, 32, 32))


def test_a_file_that_is_decoded_as_a_whole_is_decoded_once():
    calls = Calls()
    np.testing.assert_array_equal(windows_of(file_as_one_task(picture(), calls)), expected(picture()))
    assert calls == {"file": 1}


def test_a_file_that_is_decoded_as_a_whole_is_decoded_once_under_a_lazy_map():
    calls = Calls()
    level = file_as_one_task(picture(), calls).map_blocks(lambda block: 255 - block, dtype=np.uint8)
    np.testing.assert_array_equal(windows_of(level), expected(255 - picture()))
    assert calls == {"file": 1}


@pytest.mark.parametrize("chunks", [(3, 16, 16), (3, 32, 100), (1, 32, 32)])
def test_finer_chunks_than_those_of_the_file_decode_each_of_the_files_once(chunks: tuple[int, int, int]):
    calls, whole = Calls(), picture(288, 288)

    def look(block: np.ndarray, block_info: dict) -> np.ndarray:
        calls.see(tuple(block_info[0]["chunk-location"]))
        return block

    stored = da.from_array(whole, chunks=(3, 32, 288))
    seen = stored.map_blocks(look, meta=np.empty((0, 0, 0), np.uint8))
    calls.clear()
    np.testing.assert_array_equal(windows_of(seen.rechunk(chunks)), expected(whole))
    assert set(calls.values()) == {1}


def test_a_bounded_number_of_chunks_is_decoded_at_a_time(monkeypatch: pytest.MonkeyPatch):
    sizes: list[int] = []

    def get(graph: dict, keys: list, **kwargs: object) -> list:
        sizes.append(len(keys))
        return dask.get(graph, keys, **kwargs)

    with dask.config.set(scheduler=get):
        np.testing.assert_array_equal(windows_of(da.from_array(picture(), chunks=(3, 32, 32))), expected(picture()))
    assert max(sizes) == 2
    assert len(sizes) > 10


@pytest.mark.parametrize("chunks", [(3, 64, 64), (1, 64, 64), (3, 300, 17)])
@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_windows_depend_neither_on_chunks_nor_on_the_scheduler(tmp_path: Path, chunks: tuple, scheduler: str):
    store = zarr.create_array(tmp_path / "image.zarr", data=picture(), chunks=chunks)
    with dask.config.set(scheduler=scheduler):
        np.testing.assert_array_equal(windows_of(da.from_zarr(store)), expected(picture()))


def test_a_distributed_client_reads_the_same_windows(tmp_path: Path):
    import distributed

    zarr.create_array(tmp_path / "image.zarr", data=picture(), chunks=(3, 64, 64))
    level = da.from_zarr(tmp_path / "image.zarr")
    cluster = {"processes": False, "n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**cluster) as local, distributed.Client(local) as client:
        np.testing.assert_array_equal(windows_of(level), expected(picture()))
        # in a task of the only thread there is: a fold that runs on the cluster reads its own tiles
        np.testing.assert_array_equal(client.submit(windows_of, level).result(timeout=60), expected(picture()))


def test_an_image_that_cannot_be_decoded_says_which(tmp_path: Path):
    zarr.create_array(tmp_path / "image.zarr", data=picture(), chunks=(3, 64, 64))
    chunk = next(path for path in (tmp_path / "image.zarr").rglob("*") if path.is_file() and path.name == "2")
    chunk.write_bytes(chunk.read_bytes()[:100])
    with pytest.raises(Exception, match="zstd|decompress") as raised:  # whatever the codec raises
        windows_of(da.from_zarr(tmp_path / "image.zarr"))
    assert "level 0 of image 'slide'" in raised.value.__notes__[0]
