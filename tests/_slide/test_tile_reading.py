from __future__ import annotations

import threading
import tracemalloc
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
from h2e._slide.windows import Windows, stream

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
    assert max(sizes) <= 2 + 4  # a window of 30 px has at most four chunks
    assert len(sizes) > 10


def counted(whole: np.ndarray, chunks: tuple[int, int, int], calls: Calls, level: int = 0) -> da.Array:
    def look(block: np.ndarray, block_info: dict) -> np.ndarray:
        calls.see((level, *block_info[0]["chunk-location"]))
        return block

    return da.from_array(whole, chunks=chunks).map_blocks(look, meta=np.empty((0, 0, 0), np.uint8))


@pytest.mark.parametrize("chunks", [(3, 32, 32), (3, 45, 71), (1, 64, 64), (3, 300, 17), (3, 20, 300)])
@pytest.mark.parametrize("side", [9, 80, 250])
@pytest.mark.parametrize("coarse", [0, 1])
def test_a_chunk_is_decoded_once_in_all_batches_with_and_without_a_pyramid(chunks: tuple, side: int, coarse: int):
    whole, calls = picture(), Calls()
    levels = counted(whole, chunks, calls), counted(whole[:, ::2, ::2], chunks, calls, 1)
    calls.clear()
    requests = [Windows(0, corners(), 12, 6), Windows(coarse, corners() // (1 + coarse), side, 5)]
    batches = list(stream(levels, requests, "slide"))
    assert sorted(np.concatenate([at for at, _ in batches])) == list(range(60))
    assert len(batches) > 2 or chunks == (3, 20, 300)
    assert set(calls.values()) == {1}


def test_what_does_not_fit_into_memory_is_read_in_bands_of_columns(monkeypatch: pytest.MonkeyPatch):
    calls = Calls()
    level = counted(picture(), (3, 20, 20), calls)
    calls.clear()
    monkeypatch.setattr(_windows, "HELD_BYTES", 3 * 60 * 100)
    np.testing.assert_array_equal(windows_of(level), expected(picture()))
    assert max(calls.values()) == 2
    assert sum(calls.values()) < 1.6 * len(calls)


def test_memory_does_not_grow_with_the_image(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_windows, "HELD_BYTES", 2**20)
    monkeypatch.setattr(_windows, "BATCH_BYTES", 2**18)

    def peak(size: int) -> int:
        level = da.zeros((3, size, size), dtype=np.uint8, chunks=(3, 128, 128)).map_blocks(np.ascontiguousarray)
        origins = np.stack(np.meshgrid(*2 * [np.arange(0, size, 100)]), axis=-1).reshape(-1, 2)
        tracemalloc.start()
        for _ in stream([level], [Windows(0, origins, 200, 4)], "slide"):
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(500)
    with dask.config.set(scheduler="synchronous"):
        small, large = peak(1000), peak(2000)
    assert large < 1.3 * small  # 1.6 times as much without a budget


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
    cluster = {"processes": False, "n_workers": 1, "threads_per_worker": 1, "dashboard_address": ":0"}
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
