"""Public data sets as one lazy multi-slide SpatialData, and whole-slide files."""

from h2e.datasets._her2st import her2st
from h2e.datasets._mob import mob
from h2e.datasets._slide_file import read_slide
from h2e.datasets._toy import toy_cohort
from h2e.datasets._visium_mini import visium_mini

__all__ = ["her2st", "mob", "read_slide", "toy_cohort", "visium_mini"]
