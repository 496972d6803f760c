"""Warnings name the line of the user, however deep in h2e they arise."""

import warnings

import h2e


def test_a_warning_from_deep_inside_names_the_line_of_the_call():
    sdata = h2e.datasets.toy_cohort(n_slides=2, n_donors=2, side=6)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        h2e.tl.fit(sdata, targets=["TOY01"], learners="mean", progress=False)
    (about_groups,) = [one for one in said if "group_key" in str(one.message)]
    assert about_groups.filename == __file__
