"""Fixtures that every test may use, and the tests that need real data."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spatialdata import SpatialData

    from h2e._ensemble.fold_models import Spots


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip the tests that are marked ``real_data`` where there is none."""
    if item.get_closest_marker("real_data") and not os.environ.get("H2E_DATA"):
        pytest.skip("real data are not here: set H2E_DATA to their folder")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say aloud how many tests were skipped for want of real data."""
    skipped = [
        report for report in terminalreporter.getreports("skipped") if "real_data" in getattr(report, "keywords", ())
    ]
    if skipped:
        line = f"{len(skipped)} tests need real data and were not run: set H2E_DATA to the folder that holds them"
        terminalreporter.write_line(line, yellow=True, bold=True)


@pytest.fixture(scope="session")
def cohort_source() -> SpatialData:
    """Make the synthetic cohort once; never change it."""
    from h2e.datasets import toy_cohort

    return toy_cohort()


@pytest.fixture(scope="session")
def other_source() -> SpatialData:
    """Make other slides of the same names once; never change them."""
    from h2e.datasets import toy_cohort

    return toy_cohort(seed=1)


@pytest.fixture
def cohort(cohort_source: SpatialData) -> SpatialData:
    """Copy the synthetic cohort for one test: elements may be added, replaced or transformed at will."""
    return copy_of(cohort_source)


@pytest.fixture
def new(other_source: SpatialData) -> SpatialData:
    """Copy other slides of the same names for one test, which no ensemble was trained on."""
    return copy_of(other_source)


def copy_of(source: SpatialData) -> SpatialData:
    """Copy everything but the pixels, which stay shared and lazy."""
    from spatialdata import SpatialData

    images = {key: image.copy() for key, image in source.images.items()}
    for image in images.values():
        for level in image.children.values():
            attrs = level["image"].attrs  # a copied tree shares the dict that holds the transformations
            attrs["transform"] = dict(attrs["transform"])
    shapes = {key: circles.copy() for key, circles in source.shapes.items()}
    for circles in shapes.values():
        circles.attrs["transform"] = dict(circles.attrs["transform"])
    tables = {key: table.copy() for key, table in source.tables.items()}
    return SpatialData(images=images, shapes=shapes, tables=tables)


@pytest.fixture(scope="session")
def few_source() -> SpatialData:
    """Make as many slides of as many donors with a third of the spots once; never change them."""
    from h2e.datasets import toy_cohort

    return toy_cohort(side=6)


@pytest.fixture
def few(few_source: SpatialData) -> SpatialData:
    """Copy the small slides for one test that trains many models."""
    return copy_of(few_source)


@pytest.fixture
def two_slides() -> SpatialData:
    """Make two small slides of two donors, for what takes long and needs no more."""
    from h2e.datasets import toy_cohort

    return toy_cohort(n_slides=2, n_donors=2, side=6)


@pytest.fixture(scope="session")
def spots() -> Spots:
    """Features and values of 100 spots on five slides of four donors, a line and noise; never change them."""
    from h2e._ensemble.fold_models import Spots

    rng = np.random.default_rng(0)
    slides = np.repeat(["A1", "A2", "B1", "C1", "D1"], 20)
    x = rng.normal(size=(100, 6)).astype(np.float32)
    y = (x[:, :3] @ rng.normal(size=(3, 4)) + rng.normal(size=(100, 4)) + 5).astype(np.float32)
    return Spots(slides, np.array([s[0] for s in slides]), {"texture": x, "knn": x, "mean": x}, y)


@pytest.fixture(scope="module")
def quick_models() -> Iterator[None]:
    """Let colours stand in for the features of the default learners, and few genes for those that programmes are of.

    For modules that run pages of the documentation: these two take most of their time, and have tests of their own.
    """

    def colours(images: np.ndarray, **_: object) -> np.ndarray:
        pixels = images.reshape(*images.shape[:2], -1)
        return np.concatenate([pixels.mean(2), pixels.std(2)], axis=1, dtype=np.float32)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("h2e._learners.encoders.shell_features", colours)
        patch.setattr("h2e._learners.texture.texture_features", colours)
        patch.setattr("h2e._ensemble.transforms.N_GENES", 50)
        yield
