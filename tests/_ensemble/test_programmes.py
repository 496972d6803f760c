"""Training values that are averaged with their projection on programmes of genes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.decomposition import PCA

import h2e
from h2e._ensemble.transforms import _unit_scores, denoise_targets
from h2e._slide.tiles import View
from h2e._statistics import log_normalize

TEXTURE = h2e.tl.Texture(views=(View(2, 16),))


@pytest.fixture(scope="module")
def planted() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log rates of 80 genes on two slides, which three programmes drive; the same of counts; the slides."""
    rng = np.random.default_rng(0)
    slides = np.repeat(["A", "B"], [150, 100])
    rates = np.exp(rng.normal(size=(250, 3)) @ rng.normal(0, 0.7, (3, 80)) + (slides == "B")[:, None])
    truth = log_normalize(rates * 50)
    return truth, log_normalize(rng.poisson(rates).astype(float)), slides


def test_the_projection_is_that_of_a_singular_value_decomposition(planted):
    _, genes, slides = planted
    z = genes.astype(float)
    for slide in "AB":
        z[slides == slide] -= z[slides == slide].mean(axis=0)
    basis = np.linalg.svd(z / z.std(axis=0), full_matrices=False)[0][:, :4]
    y = genes[:, :7]
    expected = (y + (y - z[:, :7]) + basis @ (basis.T @ z[:, :7])) / 2
    np.testing.assert_allclose(denoise_targets(y, genes, slides, 4), expected, atol=1e-5)
    np.testing.assert_allclose(denoise_targets(y, sparse.csr_matrix(genes), slides, 4), expected, atol=1e-5)


@pytest.mark.parametrize(("n_spots", "rank"), [(250, 80), (70, 80), (80, 80), (40, 80), (250, 2), (40, 2)])
def test_scores_are_those_of_all_principal_components_by_sign(n_spots: int, rank: int):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(n_spots, rank)) @ np.diag(0.9 ** np.arange(rank)) @ rng.normal(size=(rank, 80))
    z -= z.mean(axis=0)
    scores = PCA(4, svd_solver="covariance_eigh").fit_transform(z)[:, :rank]
    expected, found = scores / np.linalg.norm(scores, axis=0), _unit_scores(z, 4)
    order = np.abs(expected.T @ found).argmax(axis=1)
    sign = np.sign((expected * found[:, order]).sum(axis=0))
    np.testing.assert_allclose(found[:, order] * sign, expected, atol=1e-8)
    assert found.shape == expected.shape


def test_values_come_closer_to_the_truth_and_slide_means_stay(planted):
    truth, genes, slides = planted
    blended = denoise_targets(genes, genes, slides, 3)
    for slide in "AB":
        rows = slides == slide
        np.testing.assert_allclose(blended[rows].mean(axis=0), genes[rows].mean(axis=0), atol=1e-4)
        before, after = (h2e.metrics.pearson(x[rows], truth[rows]).mean() for x in (genes, blended))
        assert after > before + 0.05


def test_genes_that_are_rarely_detected_or_do_not_vary_have_no_say(planted):
    _, genes, slides = planted
    rare = np.zeros((250, 3))
    rare[[0, 100, 200]] = 50 * np.eye(3)
    constant = np.column_stack([np.full(250, 7.0), np.where(slides == "A", 1.0, 90.0)])
    more = np.hstack([genes, rare, constant])
    np.testing.assert_allclose(
        denoise_targets(genes, more, slides, 3), denoise_targets(genes, genes, slides, 3), atol=1e-5
    )


def test_without_programmes_genes_or_enough_spots_nothing_changes(planted):
    _, genes, slides = planted
    assert denoise_targets(genes, genes, slides, 0) is genes
    assert denoise_targets(genes, None, slides, 5) is genes
    assert denoise_targets(genes, np.ones_like(genes), slides, 5) is genes
    few = genes[:9]
    assert denoise_targets(few, few, slides[:9], 5) is few
    one, two = (denoise_targets(genes[:29], genes[:29], slides[:29], n) for n in (2, 10))  # one for ten spots
    np.testing.assert_array_equal(one, two)


@pytest.mark.filterwarnings("ignore:spots with counts have no tissue")  # flipped counts
def test_a_group_has_no_say_in_the_programmes_of_those_who_predict_it(cohort):
    options = {"targets": ["TOY01", "TOY02"], "learners": TEXTURE, "group_key": "donor", "progress": False}
    before = h2e.tl.fit(cohort, **options).loo
    of_b = (cohort["table"].obs["donor"] == "B").to_numpy()
    x = cohort["table"].X.toarray()
    x[of_b, 2:] = np.random.default_rng(0).permuted(x[of_b, 2:], axis=0)  # of other genes, spot by spot
    cohort["table"].X = sparse.csr_matrix(x)
    after = h2e.tl.fit(cohort, **options).loo
    same = before.index.get_level_values("region") == "toy_B1"
    np.testing.assert_array_equal(after[same], before[same])
    assert np.abs(after - before)[~same].to_numpy().max() > 1e-3


def test_proportions_and_baselines_are_learned_as_they_are(cohort):
    options = {"learners": TEXTURE, "group_key": "donor", "progress": False}
    ten, none = (h2e.tl.fit(cohort, obsm="proportions", n_programmes=n, **options) for n in (10, 0))
    np.testing.assert_array_equal(ten.loo, none.loo)
    assert ten.settings["n_programmes"] == 0
    options |= {"targets": ["TOY01"], "metrics": "pearson", "baselines": "texture"}
    ten, none = (h2e.tl.evaluate(cohort, n_programmes=n, **options).set_index("method")["value"] for n in (10, 0))
    np.testing.assert_array_equal(ten["baseline: ridge on texture"], none["baseline: ridge on texture"])
    assert (ten["ensemble"].to_numpy() != none["ensemble"].to_numpy()).any()


@pytest.mark.parametrize("n", [-1, 2.5, "ten"])
def test_no_number_of_programmes_is_refused(cohort, n):
    with pytest.raises(ValueError, match=f"n_programmes must be 0 or a number of components, got {n!r}"):
        h2e.tl.fit(cohort, n_programmes=n)


@pytest.mark.parametrize("matrix", [np.asarray, sparse.csr_matrix])
def test_a_gene_that_is_the_same_everywhere_belongs_to_no_programme(planted, matrix):
    _, genes, slides = planted
    several = [np.tile(x, (12, 1)) for x in (genes, np.full((250, 1), 3.7, np.float32))]
    slides = np.tile(slides, 12)
    found = denoise_targets(several[0][:, :3], matrix(np.hstack(several)), slides, 4)
    np.testing.assert_allclose(found, denoise_targets(several[0][:, :3], several[0], slides, 4), atol=1e-5)
    constant = np.full((3000, 5), 3.7, np.float32)
    np.testing.assert_array_equal(denoise_targets(constant, matrix(constant), slides, 4), constant)
