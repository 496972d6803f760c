"""The size of a pixel of a table alone is one number, or is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from h2e._sdata.table_slides import slides_of_table


def table(first: float, others: float) -> AnnData:
    """Nine spots, the first of which may say something else than the others."""
    xy = np.stack(np.meshgrid(np.arange(3.0), np.arange(3.0)), axis=-1).reshape(-1, 2)
    obs = pd.DataFrame({"um_per_px": [first] + 8 * [others]}, index=[f"spot {i}" for i in range(9)])
    return AnnData(obs=obs, obsm={"spatial": xy})


def test_a_gap_in_the_size_of_a_pixel_is_filled_by_the_other_spots():
    assert slides_of_table(table(np.nan, 0.5), library_key=None, um_per_px=None)[0].um_per_px == 0.5


@pytest.mark.parametrize(("sizes", "message"), [((0.5, 1.0), "one number"), ((-1.0, -1.0), "positive number")])
def test_the_first_spot_does_not_speak_for_spots_that_contradict_it(sizes: tuple[float, float], message: str):
    with pytest.raises(ValueError, match=message):
        slides_of_table(table(*sizes), library_key=None, um_per_px=None)
