"""Laws of whole-slide files: their pixels, levels and scale are read lazily and travel as paths; the rest is refused."""

from __future__ import annotations

import gc
import logging
import pickle
import subprocess
import sys
import zlib
from pathlib import Path

import dask.array as da
import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
from spatialdata import SpatialData
from spatialdata.transformations import get_transformation, set_transformation

import h2e
from h2e._sdata.keys import Keys
from h2e._sdata.slides import open_bare_images
from h2e.datasets import _slide_file, read_slide
from h2e.datasets._cohort import halve, multiscale_image

TILE = 128
MPP = 6.25
JPEG = {"compression": "jpeg", "compressionargs": {"level": 95}, "photometric": "rgb"}


@pytest.fixture(autouse=True)
def _several_chunks(monkeypatch):
    """Cut also small slides into chunks."""
    monkeypatch.setattr(_slide_file, "CHUNK_PX", TILE)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Pixels of a toy slide, (y, x, 3), not square and not of whole tiles."""
    image = h2e.datasets.toy_cohort(n_slides=1, n_donors=1, side=6, seed=3)["toy_A1_image"]["scale0"]["image"]
    return np.ascontiguousarray(np.moveaxis(image.data[:, :260].compute(), 0, -1))


def reduced(pixels: np.ndarray, times: int) -> np.ndarray:
    """Halve pixels (y, x, 3) some times."""
    for _ in range(times):
        pixels = np.moveaxis(halve(np.moveaxis(pixels, -1, 0)), 0, -1)
    return pixels


def write_svs(path: Path, pixels: np.ndarray, *, about: str = f"|MPP = {MPP}", **options) -> Path:
    """Write a pyramid as Aperio does, with overview, label and macro image between and behind the levels."""
    options = {"tile": (TILE, TILE), **JPEG, **options}
    strips = {**JPEG, "rowsperstrip": 16, "metadata": None}
    title = f"Aperio Image Library v12.0.15\r\n{pixels.shape[1]}x{pixels.shape[0]} JPEG/RGB Q=95"
    with tifffile.TiffWriter(path) as tiff:
        for k in (0, 1, 2):
            level = {"description": title + about} if k == 0 else {"description": title}
            tiff.write(reduced(pixels, k), metadata=None, software=None, **level, **options)
            if k == 0:
                tiff.write(np.zeros_like(reduced(pixels, 3)), description=title, **strips)
        tiff.write(np.zeros((64, 80, 3), np.uint8), description=f"{title}\r\nlabel 80x64", subfiletype=1, **strips)
        tiff.write(np.zeros((48, 120, 3), np.uint8), description=f"{title}\r\nmacro 120x48", subfiletype=9, **strips)
    return path


def write_ome(path: Path, pixels: np.ndarray, *, axes: str = "YXS", about: dict | None = None, **options) -> Path:
    """Write a pyramid in SubIFDs as OME has it, and a small second image."""
    lossless = {"photometric": "rgb" if "S" in axes else "minisblack", "compression": "zlib"}
    options = {"tile": (TILE, TILE), **(JPEG if axes == "YXS" else lossless), **options}
    about = {"PhysicalSizeX": MPP, "PhysicalSizeY": MPP} if about is None else about
    levels = [np.moveaxis(reduced(pixels, k), -1, axes.index("S" if "S" in axes else "C")) for k in (0, 1, 2)]
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(levels[0], subifds=2, metadata={"axes": axes, **about}, **options)
        for level in levels[1:]:
            tiff.write(level, subfiletype=1, metadata=None, **options)
        tiff.write(np.zeros((48, 120, 3), np.uint8), photometric="rgb", metadata={"axes": "YXS", "PhysicalSizeX": 99.0})
    return path


def write_tiff(
    path: Path, pixels: np.ndarray, *, dots: float = 10000 / MPP, unit: str = "CENTIMETER", **options
) -> Path:
    """Write a pyramid of reduced pages, as libvips does."""
    options = {"tile": (TILE, TILE), "photometric": "rgb", "metadata": None, **options}
    with tifffile.TiffWriter(path) as tiff:
        for k in (0, 1, 2):
            given = {"resolution": (dots, dots), "resolutionunit": unit, "subfiletype": int(k > 0)}
            tiff.write(reduced(pixels, k), **given, **options)
    return path


def arrays(sdata: SpatialData, name: str = "S1") -> list[da.Array]:
    """The levels of an image, finest first."""
    return [node["image"].data for node in sdata[name].children.values()]


NAMED = {"PhysicalSizeX": MPP * 1000, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": MPP / 1000, "PhysicalSizeYUnit": "mm"}
NAMED["Channel"] = {"Name": ["Red", "Green", "Blue"]}

FORMS = {
    "S1.svs": write_svs,
    "S1.ome.tif": write_ome,
    "S1.tif": write_tiff,
    "S1.planar.ome.tif": lambda path, pixels: write_ome(path, pixels, axes="SYX", planarconfig="separate"),
    "S1.channels.ome.tif": lambda path, pixels: write_ome(path, pixels, axes="CYX", about=NAMED),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_slide_is_what_was_written_level_by_level(form: str, pixels, tmp_path):
    sdata = read_slide(FORMS[form](tmp_path / form, pixels), name="S1")
    assert list(sdata.images) == ["S1"]
    assert sdata["S1"]["scale0"]["image"].coords["c"].to_numpy().tolist() == ["r", "g", "b"]
    levels = arrays(sdata)
    assert [level.shape[1:] for level in levels] == [(260, 288), (130, 144), (65, 72)]
    for k, level in enumerate(levels):
        read = np.moveaxis(level.compute(), 0, -1)
        assert read.dtype == np.uint8
        assert np.abs(read.astype(int) - reduced(pixels, k)).mean() < (4 if form in ("S1.svs", "S1.ome.tif") else 1e-9)
    placed = get_transformation(sdata["S1"], get_all=True)
    assert set(placed) == {"S1_px", "S1_um"}
    assert np.allclose(placed["S1_um"].to_affine_matrix(("x", "y"), ("x", "y")), np.diag([MPP, MPP, 1]))


def test_both_libraries_read_the_same_levels_sizes_and_colours(pixels, tmp_path, monkeypatch):
    path = write_svs(tmp_path / "S1.svs", pixels)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].photometric.name == "YCBCR"
    ours = read_slide(path)
    by_tifffile = [level.compute() for level in arrays(ours)]
    monkeypatch.setattr(_slide_file, "_open_tiff", lambda _: None)
    _slide_file.open_levels.cache_clear()
    theirs = read_slide(path)
    assert get_transformation(ours["S1"], "S1_um") == get_transformation(theirs["S1"], "S1_um")
    assert arrays(theirs)[1].numblocks == (1, 2, 2)
    for one, other in zip(by_tifffile, arrays(theirs), strict=True):
        np.testing.assert_array_equal(other.compute(), one)
    slide = openslide.OpenSlide(path)
    whole = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]
    np.testing.assert_array_equal(np.moveaxis(by_tifffile[0], 0, -1), whole)


def test_what_openslide_reads_is_read_by_it_and_what_was_never_scanned_is_white(pixels, tmp_path):
    red, green, blue = np.moveaxis(pixels[:128, :128].astype(float), -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    colours = (
        np.stack([luma, 128 + 0.564 * (blue - luma), 128 + 0.713 * (red - luma)], axis=-1).round().astype(np.uint8)
    )
    tile = imagecodecs.jpeg2k_encode(colours, level=0, codecformat="j2k", mct=False)
    about = {"description": f"Aperio Image Library v12.0.15\r\n256x128|MPP = {MPP}", "metadata": None, "software": None}
    form = {"shape": (128, 256, 3), "dtype": np.uint8, "tile": (TILE, TILE), "photometric": "rgb"}
    tifffile.imwrite(tmp_path / "S1.svs", iter([tile, b""]), compression=33003, **form, **about)
    (level,) = arrays(read_slide(tmp_path / "S1.svs"))
    read = np.moveaxis(level.compute(), 0, -1).astype(int)
    assert np.abs(read[:, :128] - pixels[:128, :128]).max() <= 3
    assert (read[:, 128:] == 255).all()


def test_transparent_pixels_and_tiles_that_are_not_there_are_white(pixels, tmp_path):
    alpha = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    alpha[:, :50], alpha[:, 50:100] = 0, 51
    path = tmp_path / "S1.tif"
    form = {"photometric": "rgb", "extrasamples": ["unassalpha"], "resolution": (1e4, 1e4), "metadata": None}
    tifffile.imwrite(path, np.concatenate([pixels, alpha], axis=2), resolutionunit="CENTIMETER", rowsperstrip=7, **form)
    read = arrays(read_slide(path))[0].compute()
    share = alpha / 255
    np.testing.assert_array_equal(np.moveaxis(read, 0, -1), (pixels * share + 255 * (1 - share)).round())
    tiles = (b"", zlib.compress(pixels[:TILE, :TILE].tobytes()))
    form = {"photometric": "rgb", "shape": (TILE, 2 * TILE, 3), "dtype": np.uint8, "tile": (TILE, TILE)}
    tifffile.imwrite(tmp_path / "sparse.tif", iter(tiles), metadata=None, compression="zlib", **form)
    read = arrays(read_slide(tmp_path / "sparse.tif", um_per_px=1), "sparse")[0].compute()
    assert (read[:, :, :TILE] == 255).all()
    np.testing.assert_array_equal(np.moveaxis(read[:, :, TILE:], 0, -1), pixels[:TILE, :TILE])


@pytest.mark.parametrize("tile", [(240, 240), (256, 256), (512, 512), (2048, 2048), (16, 5000), (1, 5000)])
def test_chunks_are_whole_tiles_and_moderate_and_their_tasks_are_small(tile: tuple[int, int], tmp_path, monkeypatch):
    monkeypatch.setattr(_slide_file, "CHUNK_PX", 1024)
    encoded = zlib.compress(bytes(3 * tile[0] * tile[1]))
    form = {"photometric": "rgb", "shape": (4800, 5000, 3), "dtype": np.uint8, "compression": "zlib", "metadata": None}
    form |= {"rowsperstrip": tile[0]} if tile[1] == 5000 else {"tile": tile}
    number = -(-4800 // tile[0]) * -(-5000 // tile[1])
    tifffile.imwrite(tmp_path / "S1.tif", iter([encoded] * number), **form)
    (level,) = arrays(read_slide(tmp_path / "S1.tif", um_per_px=0.5))
    height, width = level.chunksize[1:]
    assert (height % tile[0], width % tile[1]) == (0, 0)
    assert 700 <= np.sqrt(height * width) <= 2048
    assert len(pickle.dumps(level)) < 3000


def test_a_slide_travels_as_a_path_to_another_process(pixels, tmp_path):
    level = arrays(read_slide(write_svs(tmp_path / "S1.svs", pixels)))[0]
    (tmp_path / "level.pickle").write_bytes(pickle.dumps(level))
    code = "import pickle, sys, numpy, pathlib; level = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes()); "
    code += "numpy.save(sys.argv[2], level[:, 100:200].compute(scheduler='sync'))"
    command = [
        sys.executable,
        "-W",
        "error::ResourceWarning",
        "-c",
        code,
        tmp_path / "level.pickle",
        tmp_path / "part.npy",
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd="/")
    assert done.stderr == ""
    np.testing.assert_array_equal(np.load(tmp_path / "part.npy"), level[:, 100:200].compute())


def test_threads_read_what_was_written(pixels, tmp_path):
    level = arrays(read_slide(write_tiff(tmp_path / "S1.tif", pixels, tile=(16, 16), compression="zlib")))[0]
    assert level.numblocks == (1, 3, 3)
    read = level.compute(scheduler="threads", num_workers=8)
    np.testing.assert_array_equal(np.moveaxis(read, 0, -1), pixels)


def test_a_file_that_was_written_anew_is_read_anew(pixels, tmp_path):
    path = tmp_path / "S1.tif"
    assert arrays(read_slide(write_tiff(path, pixels)))[0][:, 0, 0].compute().tolist() == pixels[0, 0].tolist()
    write_tiff(path, 255 - pixels, compression="zlib")
    assert arrays(read_slide(path))[0][:, 0, 0].compute().tolist() == (255 - pixels[0, 0]).tolist()


@pytest.mark.usefixtures("quick_models")
def test_predictions_are_those_of_the_same_pixels_in_memory(pixels, two_slides, tmp_path):
    ensemble = h2e.tl.fit(two_slides, learners="texture", n_targets=3, group_key="donor", progress=False)
    slide = read_slide(write_svs(tmp_path / "S1.svs", pixels))
    image = multiscale_image([da.from_array(level.compute()) for level in arrays(slide)], "S1_px")
    set_transformation(image, get_transformation(slide["S1"], "S1_um"), "S1_um")
    memory = SpatialData(images={"S1": image})
    for one in (slide, memory):
        h2e.tl.predict(one, ensemble, progress=False)
    assert np.isfinite(slide["table"].obsm["h2e"]).to_numpy().sum() > 10
    assert slide["table"].obsm["h2e"].equals(memory["table"].obsm["h2e"])


def test_the_file_is_a_source_of_the_scale_also_of_joined_slides(pixels, tmp_path):
    one = read_slide(write_svs(tmp_path / "S1.svs", pixels))
    other = read_slide(write_ome(tmp_path / "a 0.25um.ome.tif", pixels))
    slides = open_bare_images(h2e.pp.join_slides({"A": one, "B": other}), Keys())
    assert [slide.um_per_px for slide in slides] == pytest.approx([MPP, MPP])
    assert [slide.um_per_px_from for slide in slides] == ["affine to µm: 'A_S1_um'", "affine to µm: 'B_a_0.25um_um'"]


@pytest.mark.parametrize(("about", "um"), [("|MPP = 0.2521|AppMag = 40", 0.2521), ("|MPP=0.5", 0.5)])
def test_aperio_says_how_large_a_pixel_is(about: str, um: float, pixels, tmp_path):
    sdata = read_slide(write_svs(tmp_path / "S1.svs", pixels, about=about))
    assert get_transformation(sdata["S1"], "S1_um").to_affine_matrix(("x",), ("x",))[0, 0] == um


@pytest.mark.parametrize(("dots", "unit", "um"), [(40000, "CENTIMETER", 0.25), (50800, "INCH", 0.5)])
def test_tags_of_a_tiff_say_how_large_a_pixel_is(dots: float, unit: str, um: float, pixels, tmp_path):
    sdata = read_slide(write_tiff(tmp_path / "S1.tif", pixels, dots=dots, unit=unit))
    assert get_transformation(sdata["S1"], "S1_um").to_affine_matrix(("x",), ("x",))[0, 0] == pytest.approx(um)


@pytest.mark.parametrize(("dots", "unit"), [(72, "INCH"), (96, "INCH"), (1200, "INCH"), (1, "CENTIMETER"), (1, "NONE")])
def test_where_no_file_says_it_the_size_of_a_pixel_is_asked_for(dots: float, unit: str, pixels, tmp_path):
    path = write_tiff(tmp_path / "S1.tif", pixels, dots=dots, unit=unit)
    with pytest.raises(ValueError, match=r"S1.tif says .* \(screens and prints\) tell nothing. Pass um_per_px"):
        read_slide(path)
    sdata = read_slide(path, um_per_px=0.3)
    assert get_transformation(sdata["S1"], "S1_um").to_affine_matrix(("x",), ("x",))[0, 0] == 0.3


def test_sizes_that_contradict_each_other_are_refused(pixels, tmp_path):
    path = write_svs(tmp_path / "S1.svs", pixels)
    assert read_slide(path, um_per_px=MPP * 1.04)
    with pytest.raises(ValueError, match=r"got 12.5 µm \(um_per_px=\) and 6.25 µm \(S1.svs in x\)"):
        read_slide(path, um_per_px=12.5)
    with pytest.raises(ValueError, match="must be a positive number of µm, got -1"):
        read_slide(path, um_per_px=-1)
    about = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}
    with pytest.raises(ValueError, match=r"got 0.25 µm \(S1.ome.tif in x\) and 0.5 µm \(S1.ome.tif in y\)"):
        read_slide(write_ome(tmp_path / "S1.ome.tif", pixels, about=about))


def test_levels_of_another_scale_are_left_out_and_a_file_without_a_pyramid_is_told(pixels, tmp_path, caplog):
    path = tmp_path / "my slide (1).tif"
    with tifffile.TiffWriter(path) as tiff:
        for k, part in enumerate((pixels, pixels[:, :144], pixels[::4, ::4])):
            options = {"photometric": "rgb", "tile": (64, 64), "description": "Aperio |MPP = 0.5" * (k == 0)}
            tiff.write(np.ascontiguousarray(part), metadata=None, software=None, **options)
    sdata = read_slide(path)
    assert [level.shape[1:] for level in arrays(sdata, "my_slide__1_")] == [(260, 288), (65, 72)]
    with caplog.at_level(logging.INFO, "h2e"):
        read_slide(path)
        assert caplog.messages == []
        tifffile.imwrite(tmp_path / "S1.tif", pixels, photometric="rgb", metadata=None)
        read_slide(tmp_path / "S1.tif", um_per_px=0.5)
    assert caplog.messages == ["S1.tif has no pyramid: small images are made of all its pixels"]


REFUSED = {
    "16 bit": (
        lambda p: {"data": p.astype(np.uint16), "photometric": "rgb"},
        "must be upright 8-bit RGB, got RGB uint16",
    ),
    "gray": (lambda p: {"data": p[..., 0], "photometric": "minisblack"}, "got MINISBLACK uint8 YX "),
    "stains": (
        lambda p: (
            {"data": np.moveaxis(p, -1, 0), "ome": True, "photometric": "minisblack"}
            | {"metadata": {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP", "Cy5"]}}}
        ),
        r"got MINISBLACK uint8 CYX \['DAPI', 'GFP', 'Cy5'\]",
    ),
    "turned": (lambda p: {"data": p, "photometric": "rgb", "extratags": [(274, 3, 1, 6, True)]}, "orientation 6"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_pixels_than_upright_rgb_are_refused(kind: str, pixels, tmp_path):
    options, message = REFUSED[kind]
    tifffile.imwrite(tmp_path / "S1.tif", **{"metadata": None, **options(pixels)})
    with pytest.raises(ValueError, match=message):
        read_slide(tmp_path / "S1.tif", um_per_px=0.5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.3])
@pytest.mark.parametrize("write", [write_svs, write_ome])
def test_a_file_that_is_cut_off_is_refused(write, share: float, pixels, tmp_path):
    path = write(tmp_path / "S1.svs", pixels)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match="it is cut off, copy it again|is it complete"):
        read_slide(path)


def test_what_is_no_slide_is_refused_and_missing_packages_are_named(pixels, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"must be a whole-slide file .* got '.*nothing.svs', which is no file"):
        read_slide(tmp_path / "nothing.svs")
    with pytest.raises(FileNotFoundError, match="of DICOM one of its files"):
        read_slide(tmp_path)
    (tmp_path / "text.svs").write_text("Not a slide.")
    with pytest.raises(ValueError, match=r"'.*text.svs' must be a whole-slide file, got what neither"):
        read_slide(tmp_path / "text.svs")
    monkeypatch.setitem(sys.modules, "openslide", None)
    (tmp_path / "other.mrxs").write_text("Not a slide.")
    with pytest.raises(ImportError, match=r"other.mrxs' needs packages .*openslide.*: pip install 'h2e\[wsi\]'"):
        read_slide(tmp_path / "other.mrxs")


def test_files_that_are_used_no_more_are_closed(pixels, tmp_path):
    """A file that is collected while it is open makes a ResourceWarning, which is an error here."""
    read_slide(write_ome(tmp_path / "S1.ome.tif", pixels))
    with pytest.raises(ValueError, match="got 99 µm"):
        read_slide(tmp_path / "S1.ome.tif", um_per_px=99)
    _slide_file.open_levels.cache_clear()
    gc.collect()
