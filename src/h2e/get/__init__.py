"""Get what was stored in the shape that other tools read."""

from h2e.get._geojson import geojson
from h2e.get._predictions import predictions
from h2e.get._report import report

__all__ = ["geojson", "predictions", "report"]
