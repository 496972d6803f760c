"""Fixtures that every test may use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from h2e._ensemble.fold_models import Spots


@pytest.fixture(scope="session")
def cohort_source() -> SpatialData:
    """Make the synthetic cohort once; never change it."""
    from h2e.datasets import toy_cohort

    return toy_cohort()


@pytest.fixture
def cohort(cohort_source: SpatialData) -> SpatialData:
    """Copy the synthetic cohort for one test: elements may be added, replaced or transformed at will."""
    from spatialdata import SpatialData

    images = {key: image.copy() for key, image in cohort_source.images.items()}  # pixels stay shared and lazy
    for image in images.values():
        for level in image.children.values():
            attrs = level["image"].attrs  # a copied tree shares the dict that holds the transformations
            attrs["transform"] = dict(attrs["transform"])
    shapes = {key: circles.copy() for key, circles in cohort_source.shapes.items()}
    for circles in shapes.values():
        circles.attrs["transform"] = dict(circles.attrs["transform"])
    tables = {key: table.copy() for key, table in cohort_source.tables.items()}
    return SpatialData(images=images, shapes=shapes, tables=tables)


@pytest.fixture(scope="session")
def spots() -> Spots:
    """Features and values of 100 spots on five slides of four donors, a line and noise; never change them."""
    from h2e._ensemble.fold_models import Spots

    rng = np.random.default_rng(0)
    slides = np.repeat(["A1", "A2", "B1", "C1", "D1"], 20)
    x = rng.normal(size=(100, 6)).astype(np.float32)
    y = (x[:, :3] @ rng.normal(size=(3, 4)) + rng.normal(size=(100, 4)) + 5).astype(np.float32)
    return Spots(slides, np.array([s[0] for s in slides]), {"texture": x, "knn": x, "mean": x}, y)
