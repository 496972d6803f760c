"""Fixtures that every test may use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from spatialdata import SpatialData


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
