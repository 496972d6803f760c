"""What was found and done when slides were prepared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._sdata.report import stored_report

if TYPE_CHECKING:
    from spatialdata import SpatialData


class Report(pd.DataFrame):
    """A table that prints all of its columns on lines of 100 characters; what is made of it is a plain one."""

    _constructor = pd.DataFrame

    def __str__(self) -> str:
        """Columns by columns, under each other."""
        return self.to_string(line_width=100, max_colwidth=50)


def report(data: AnnData | SpatialData, *, table_key: str = _keys.TABLE) -> pd.DataFrame:
    """What :func:`h2e.pp.normalize` found and did, a row per slide.

    Parameters
    ----------
    data
        Slides that it prepared, or their table.
    table_key
        Table of the slides; slides without one have their report in ``sdata.attrs``.

    Returns
    -------
    A new table, which prints all of its columns, with, for each slide,

    * µm per pixel and what told it (``um_per_px_from``); tissue in mm² and as a share of the image;
    * spots, those without tissue (invalid) and those kept; ``shift``, how far in spot spacings the spots were from
      where they fit the tissue best, whether they were ``moved``, and why (``placement``);
    * ``orientation``: ``"as they are"``, the one of the eight that fits the tissue better, or ``"cannot be told"``
      where the outline of the tissue is too symmetric or not on the image;
    * ``on_tissue``: share of the spots on tissue, without those that ``obs["in_tissue"]`` says are beside it;
    * ``sharpness`` of the tissue: log2 of the contrast of details of 4 to 8 µm over that of 8 to 16 µm, the same at any
      finer resolution, NaN where pixels are larger than 8 µm or of unknown size. A blur of 4 µm takes away 0.4;
    * ``saturation``, 0 to 1, and ``hue``, in degrees (0 red, 120 green, 240 blue), of its mean colour against the
      glass. An H&E has a hue between 220 and 345;
    * ``looks_like``: other slides whose images show the same;
    * ``qc_outliers``, and ``qc_…`` of each metric: where ``squidpy.experimental.im.qc_image`` was run, the share of
      tiles on tissue that it flags, which it ranks within a slide, and the median of its metrics;
    * the stain vectors before normalization;
    * ``warnings``: in words, what of this is odd, empty if nothing is. Figures are compared with those of the other
      slides where there are five or more. :func:`h2e.pl.report` draws them.

    Raises
    ------
    KeyError
        There is no report.

    Examples
    --------
    >>> import h2e
    >>> sdata = h2e.datasets.toy_cohort()
    >>> h2e.pp.normalize(sdata)
    >>> h2e.get.report(sdata)["shift"].round(1).to_dict()
    {'toy_A1': 0.2, 'toy_A2': 0.8, 'toy_B1': 0.1, 'toy_C1': 0.1}
    """
    tables = getattr(data, "tables", {table_key: data})
    places = [tables[table_key].uns] if table_key in tables else []
    for place in [*places, getattr(data, "attrs", {})]:
        if (stored := stored_report(place)) is not None:
            return Report(stored)
    msg = "there is no report on these slides. Make one with h2e.pp.normalize."
    raise KeyError(msg)
