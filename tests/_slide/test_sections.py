"""One section under two names is recognized by the tissue under its spots."""

from __future__ import annotations

import io
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
from PIL import Image as Pillow

from h2e._sdata.keys import Keys
from h2e._sdata.slides import open_slides
from h2e._slide import sections
from h2e._slide.image import Image, read_coarse
from h2e._slide.orientation import orient
from h2e._slide.sections import same_sections
from h2e._slide.slide import Slide


def resized(rgb: np.ndarray, factor: float) -> np.ndarray:
    size = tuple(round(n / factor) for n in rgb.shape[1::-1])
    return np.asarray(Pillow.fromarray(np.ascontiguousarray(rgb)).resize(size, Pillow.Resampling.BOX))


def jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Pillow.fromarray(rgb).save(file, "JPEG", quality=quality)
    return np.asarray(Pillow.open(file))


def pixels_of(slide: Slide) -> np.ndarray:
    return np.moveaxis(slide.image.levels[0].compute(), 0, -1)


def copy_of(slide: Slide, rgb: np.ndarray, xy: np.ndarray, factor: float = 1.0) -> Slide:
    """A slide of other pixels and other positions, in pixels of which ``factor`` make one of its own."""
    image = Image("copy", (da.from_array(np.moveaxis(rgb, -1, 0)),), (1.0,))
    return replace(
        slide, name="copy", group="other", image=image, xy=xy / factor, spacing_px=slide.spacing_px / factor,
        rows=np.arange(len(xy)), in_tissue=np.ones(len(xy), bool),
    )  # fmt: skip


def moved(slide: Slide) -> Slide:
    padded = np.pad(pixels_of(slide), ((37, 0), (21, 0), (0, 0)), mode="edge")
    return copy_of(slide, padded, slide.xy + np.array([21, 37]))


def turned(slide: Slide) -> Slide:
    return copy_of(slide, orient(pixels_of(slide), 2), slide.image.shape[::-1] - slide.xy)


def mirrored(slide: Slide) -> Slide:
    return copy_of(slide, orient(pixels_of(slide), 7), np.abs((slide.image.shape[1], 0) - slide.xy))


COPIES = {
    "half the resolution": lambda s: copy_of(s, resized(pixels_of(s), 2), s.xy, 2),
    "JPEG": lambda s: copy_of(s, jpeg(resized(pixels_of(s), 2), 50), s.xy, 2),
    "other light": lambda s: copy_of(s, (pixels_of(s) * np.array([0.9, 0.85, 0.8])).astype(np.uint8), s.xy),
    "fewer spots": lambda s: copy_of(s, pixels_of(s), s.xy[np.random.default_rng(0).random(len(s)) < 0.8]),
    "another name and scan": moved,
    "turned": turned,
    "mirrored": mirrored,
}


@pytest.fixture(scope="module")
def slides(cohort_source) -> list[Slide]:
    return open_slides(cohort_source, Keys())


@pytest.mark.parametrize("change", COPIES)
def test_a_section_is_recognized_whatever_was_done_to_it(slides, change: str):
    for slide in slides:
        assert same_sections([*slides, COPIES[change](slide)]) == [(slide.name, "copy")]


def test_slides_of_other_cohorts_are_other_sections(slides, other_source, few_source):
    others = [replace(s, name=f"other {s.name}") for s in open_slides(other_source, Keys())]
    few = [replace(s, name=f"few {s.name}") for s in open_slides(few_source, Keys())]
    assert same_sections([*slides, *others, *few]) == []


def test_donors_on_one_scan_are_told_apart_by_their_places(slides):
    whole = slides[0]
    left = whole.xy[:, 0] < np.median(whole.xy[:, 0])
    parts = [replace(whole.take(keep), name=name) for name, keep in (("left", left), ("right", ~left))]
    assert same_sections(parts) == []
    assert same_sections([*parts, replace(whole, name="whole")]) == [("left", "whole"), ("right", "whole")]
    most = whole.xy[:, 0] < np.percentile(whole.xy[:, 0], 70)
    assert same_sections([replace(whole.take(most), name="most"), parts[1]]) == []
    # Bins of half the size on the same tissue.
    finer = replace(whole, name="bins", xy=np.concatenate([whole.xy - 8, whole.xy + 8]), spacing_px=16.0)
    assert same_sections([whole, finer]) == [(whole.name, "bins")]


def test_small_pieces_are_no_evidence(slides):
    whole = slides[0]
    corner = (whole.xy < np.median(whole.xy, axis=0)).all(axis=1)
    assert same_sections([whole, copy_of(whole, pixels_of(whole), whole.xy[corner])]) == []
    # A few cells are alike somewhere on any two slides.
    few = []
    for slide in slides:
        start = np.argsort(slide.xy.sum(axis=1))[::20]
        for k, spot in enumerate(slide.xy[start]):
            near = np.abs(slide.xy - spot).max(axis=1) < 1.5 * slide.spacing_px
            few.append(replace(slide.take(near), name=f"{slide.name} {k}"))
    assert [pair for pair in same_sections(few) if pair[0].split()[0] != pair[1].split()[0]] == []


def test_blank_slides_are_no_evidence(slides):
    rng = np.random.default_rng(0)
    glass = [rng.integers(238, 244, (416, 416, 3)).astype(np.uint8) for _ in range(2)]
    assert same_sections([copy_of(slides[0], rgb, slides[0].xy) for rgb in glass]) == []


def test_many_spots_are_compared_on_a_grid_of_bounded_size(slides, monkeypatch):
    sizes = []
    monkeypatch.setattr(sections, "spectra", lambda d, u, size: sizes.extend(size) or np.zeros((3, 1, 1)))
    same_sections([replace(slides[0], spacing_px=0.5), replace(slides[1], spacing_px=0.4)])
    assert 100 <= max(sizes) <= 400


def test_a_slide_of_many_more_spots_hides_no_copy(slides):
    bins = replace(slides[1], name="bins", spacing_px=0.04)
    assert same_sections([slides[0], bins, moved(slides[0])]) == [(slides[0].name, "copy")]


def test_an_image_is_read_once_however_many_slides_lie_on_it(slides, monkeypatch):
    read = []
    monkeypatch.setattr(sections, "read_coarse", lambda *args: read.append(args) or read_coarse(*args))
    one, other = slides[:2]
    parts = [replace(one.take(np.arange(len(one)) % 5 == k), name=f"part {k}") for k in range(5)]
    same_sections(parts)
    assert not read
    same_sections([*parts, other])
    assert len(read) == 2


@pytest.mark.real_data
def test_sister_sections_stay_apart_and_their_copies_are_found():
    import h2e

    sisters = open_slides(h2e.datasets.her2st(progress=False), Keys()) + open_slides(h2e.datasets.mob(), Keys())
    assert same_sections(sisters) == []
    for slide in sisters[2:4]:
        rgb, scale = read_coarse(slide.image, slide.spacing_px / 16)
        copy = copy_of(slide, jpeg(resized(rgb, 2), 50), slide.xy, 2 * scale)
        assert same_sections([*sisters, copy]) == [(slide.name, "copy")]
