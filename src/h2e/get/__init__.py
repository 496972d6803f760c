"""Get what was stored in the shape that other tools read."""

from h2e.get._predictions import geojson, predictions
from h2e.get._report import report

__all__ = ["geojson", "predictions", "report"]
