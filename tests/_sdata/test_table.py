"""Which spots lie on tissue, in every spelling of yes and no; and errors that say what to pass."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from spatialdata.models import TableModel

from h2e._sdata.table import get_table, in_tissue

ON = np.array([True, False, True, True, False])

SPELLINGS = {
    "bool": ON,
    "int8": ON.astype(np.int8),
    "float": ON.astype(float),
    "object of bool": ON.astype(object),
    "nullable boolean": pd.array(ON, dtype="boolean"),
    "nullable integer": pd.array(ON.astype(int), dtype="Int64"),
    "category of int": pd.Categorical(ON.astype(int)),
    "category of bool": pd.Categorical(ON),
} | {
    f"{yes!r} or {no!r}": np.where(ON, yes, no)
    for yes, no in [
        ("1", "0"), ("1.0", "0.0"), ("TRUE", "FALSE"), ("true", "false"), ("T", "F"), ("yes", "no"), ("Y", "N"),
        (" In ", "OUT"), ("inside", "outside"), ("on", "off"), ("tissue", "background"), ("in_tissue", "not_in_tissue"),
        ("On-Tissue", "Off Tissue"), ("under tissue", "out of tissue"), ("tissue", "non-tissue"),
    ]
}  # fmt: skip


@pytest.mark.parametrize("values", SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_of_yes_and_no_is_read(values: object):
    np.testing.assert_array_equal(in_tissue(pd.DataFrame({"in_tissue": values}), "A1"), ON)


@pytest.mark.parametrize("values", [[1, 0, 2, -1, 1], ["yes", "no", "maybe", "?", "no"], [1.0, 0.0, 0.3, 0.9, 1.0]])
def test_what_is_not_understood_is_listed(values: list):
    with pytest.raises(
        ValueError, match=r"must say yes or no, such as 1 and 0, got \['.*', '.*'\] for 2 of 5 spots of"
    ):
        in_tissue(pd.DataFrame({"in_tissue": values}), "A1")


@pytest.mark.parametrize("dtype", ["object", "float", "boolean", "category"])
def test_a_gap_is_left_to_the_image_and_told_of(dtype: str):
    obs = pd.DataFrame({"in_tissue": pd.Series([1.0, 0.0, None, 1.0, 0.0], dtype=dtype)})
    with pytest.warns(UserWarning, match="missing for 1 of 5 spots of slide 'A1'"):
        np.testing.assert_array_equal(in_tissue(obs, "A1"), [True, False, True, True, False])


def test_a_column_of_other_slides_says_nothing_of_this_one():
    assert in_tissue(pd.DataFrame({"in_tissue": [None, np.nan]}), "A1").all()
    assert in_tissue(pd.DataFrame(index=["a", "b"]), "A1").all()


def test_an_error_about_the_table_says_which_to_pass(cohort):
    table = cohort.tables.pop("table")
    with pytest.raises(KeyError, match="Make a table with h2e.pp.make_spots"):
        get_table(cohort)
    cohort["cells"] = TableModel.parse(table)
    with pytest.raises(KeyError, match=r"it has \['cells'\]. Pass table_key='cells'"):
        get_table(cohort)
    cohort["spots"] = TableModel.parse(table.copy())
    with pytest.raises(
        KeyError, match=r"\['cells', 'spots'\]. Pass table_key=, the one with the spots; .* get one table"
    ):
        get_table(cohort)
