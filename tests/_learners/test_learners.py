"""Learners keep to one interface, choose by groups, and survive as arrays."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from h2e._learners import multiscale as _multiscale
from h2e._learners.baselines import Coordinates, Mean
from h2e._learners.embedding import Embedding
from h2e._learners.encoder_models import as_function
from h2e._learners.encoders import MissingEncoder
from h2e._learners.multiscale import Multiscale
from h2e._learners.registry import from_json, learner_of, to_json
from h2e._learners.shell import _stain_channels, shell_features, shell_network
from h2e._learners.texture import Texture
from h2e._slide.tiles import View

VIEWS = (View(1, 16), View(3, 24))
TINY = {"epochs": 1, "tile_px": 26, "subtile_px": 16, "encoders": ("center",)}


def colours(images):
    """An encoder: the mean of each channel."""
    return images.mean((2, 3))


LEARNERS = [
    Texture(views=VIEWS),
    Texture("knn", VIEWS, k=3),
    Texture("pls", VIEWS),
    Embedding(encoder=colours, px=8),
    Multiscale(**TINY),
    Mean(),
    Coordinates(k=2),
]


def ids(learner):
    return learner.name + getattr(learner, "head", "")


@pytest.fixture(scope="module")
def cohort():
    rng = np.random.default_rng(0)
    n = 24
    shade = rng.integers(60, 230, (n, 3, 1, 1))
    y = np.c_[shade[:, 0, 0, 0] / 50, rng.normal(size=n)].astype(np.float32)
    return shade, y, np.repeat(["A", "B", "C"], 8), rng.uniform(0, 100, (n, 2)).astype(np.float32)


def seen(learner, cohort):
    """What the learner trains on."""
    shade, _, _, xy = cohort
    if learner.uses == "xy":
        return xy
    rng = np.random.default_rng(1)
    tiles = [shade + rng.integers(-20, 20, (len(shade), 3, v.px, v.px)) for v in learner.views]
    return learner.extract_features([t.clip(0, 255).astype(np.uint8) for t in tiles])


@pytest.mark.parametrize("learner", LEARNERS, ids=ids)
def test_every_learner_predicts_the_same_after_a_round_trip(learner, cohort):
    _, y, groups, _ = cohort
    x = seen(learner, cohort)
    model = learner.fit(x, y, groups, seed=0, progress=False, label="x")
    prediction = model.predict(x)
    assert prediction.shape == y.shape
    assert prediction.dtype == np.float32
    assert all(set(epoch) == {"epoch", "loss", "seconds"} for epoch in model.history)
    arrays = {name: array.copy() for name, array in model.arrays().items()}
    assert all(isinstance(a, np.ndarray) and a.dtype.kind in "fiu" for a in arrays.values())
    restored = from_json(to_json(learner)).restore(arrays)
    np.testing.assert_array_equal(restored.predict(x), prediction)


@pytest.mark.parametrize("learner", LEARNERS, ids=ids)
def test_predictions_do_not_depend_on_the_other_spots(learner, cohort):
    _, y, groups, _ = cohort
    x = seen(learner, cohort)
    model = learner.fit(x, y, groups, seed=0, progress=False)
    together = model.predict(x)
    np.testing.assert_allclose(model.predict(x[3:5]), together[3:5], rtol=1e-6)
    np.testing.assert_allclose(model.predict(x[::-1])[::-1], together, rtol=1e-6)
    assert model.predict(x[:0]).shape == (0, y.shape[1])


@pytest.mark.parametrize("learner", LEARNERS, ids=ids)
def test_the_same_seed_gives_the_same_model(learner, cohort):
    _, y, groups, _ = cohort
    x = seen(learner, cohort)
    first, second = (learner.fit(x, y, groups, seed=3, progress=False) for _ in range(2))
    np.testing.assert_array_equal(first.predict(x), second.predict(x))


@pytest.mark.parametrize("learner", LEARNERS, ids=ids)
def test_settings_survive_as_json(learner):
    text = to_json(learner)
    assert json.loads(text)["name"] == learner.name
    restored = from_json(text)
    if hasattr(learner, "encoder"):
        assert restored.encoder == MissingEncoder(None)  # code is not stored
        restored = replace(restored, encoder=learner.encoder)
    assert restored == learner
    assert hash(restored) == hash(learner)


@pytest.mark.parametrize("learner", LEARNERS, ids=ids)
def test_targets_that_are_missing_or_do_not_match_are_refused(learner, cohort):
    _, y, groups, _ = cohort
    x = seen(learner, cohort)
    with pytest.raises(ValueError, match="same spots"):
        learner.fit(x, y[:5], groups, progress=False)
    with pytest.raises(ValueError, match="finite"):
        learner.fit(x, np.full_like(y, np.nan), groups, progress=False)


@pytest.mark.parametrize("name", ["multiscale", "texture", "embedding", "mean", "coordinates"])
def test_learners_have_names(name):
    assert learner_of(name).name == name
    assert learner_of(learner_of(name)) == learner_of(name)


def test_unknown_learners_are_refused_with_the_list():
    with pytest.raises(ValueError, match=r"must be one of \['coordinates', 'embedding', 'knn', 'mean'.*, got 'forest'"):
        learner_of("forest")
    with pytest.raises(TypeError, match="got int"):
        learner_of(3)
    with pytest.raises(ValueError, match="got 'forest' in the file"):
        from_json('{"name": "forest"}')
    with pytest.raises(ValueError, match=r"no settings \['depth'\]"):
        from_json('{"name": "mean", "depth": 3}')


def test_texture_learns_a_colour_in_another_group():
    rng, groups = np.random.default_rng(0), np.repeat(["A", "B", "C"], 20)
    shade = rng.integers(60, 230, (60, 3, 1, 1))
    y = np.c_[shade[:, 0, 0, 0] / 50, rng.normal(size=60)].astype(np.float32)
    learner, rest = Texture(views=VIEWS), groups != "C"
    x = seen(learner, (shade, y, groups, None))
    prediction = learner.fit(x[rest], y[rest], groups[rest]).predict(x[~rest])
    assert np.corrcoef(prediction[:, 0], y[~rest, 0])[0, 1] > 0.9


def test_the_embedding_sees_tile_centre_surroundings_and_subtiles_where_asked():
    tile, center, around = (np.full((1, 3, 4, 4), grey, np.uint8) for grey in (7, 90, 5))
    learner = Embedding(encoder=colours, px=4)
    assert [(view.extent, view.px) for view in learner.views] == [(3, 4), (1, 4), (7, 4)]
    np.testing.assert_allclose(learner.extract_features([tile, center, around])[0], np.repeat([7, 90, 5], 3))
    fine = np.zeros((1, 3, 12, 12), np.uint8)
    fine[:, :, 4:8, 4:8] = 90
    learner = Embedding(encoder=colours, px=4, subtiles=True)
    assert [(view.extent, view.px) for view in learner.views] == [(3, 4), (3, 12), (7, 4)]
    np.testing.assert_allclose(learner.extract_features([tile, fine, around])[0], np.repeat([7, 90, 5, 10], 3))
    assert len(Embedding(encoder=colours, surroundings=0).views) == 2
    assert Embedding(obsm="X_uni").views == ()


def test_an_embedding_without_a_usable_encoder_is_refused():
    tiles = [np.zeros((2, 3, v.px, v.px), np.uint8) for v in Embedding(px=8).views]
    with pytest.raises(TypeError, match="a name, a torch module or a callable, got NoneType"):
        Embedding(encoder=None, px=8)
    with pytest.raises(ValueError, match=r"must return \(n, d\)"):
        Embedding(encoder=lambda images: images, px=8).extract_features(tiles)
    with pytest.raises(ValueError, match="not both"):
        Embedding(encoder=colours, obsm="x")
    with pytest.raises(ValueError, match="encoder must be 'shell', 'timm:' or .*, got 'resnet50'"):
        Embedding(encoder="resnet50")
    with pytest.raises(TypeError, match="a name, a torch module or a callable, got int"):
        Embedding(encoder=3)


def test_a_torch_module_is_an_encoder():
    class Maps(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    images = np.random.default_rng(0).integers(0, 256, (20, 3, 6, 6), dtype=np.uint8)
    expected = (images.mean((2, 3)) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    np.testing.assert_allclose(as_function(Maps())(images), expected, atol=1e-5)


def test_a_module_is_given_images_where_its_weights_are():
    module = torch.nn.Conv2d(3, 4, 3)
    seen = []
    module.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].device))
    as_function(module)(np.zeros((1, 3, 8, 8), np.uint8))
    assert seen == [next(module.parameters()).device]
    with pytest.raises(NotImplementedError, match="meta"):  # what it gives cannot be read, but the images got there
        as_function(torch.nn.Conv2d(3, 4, 3, device="meta"))(np.zeros((1, 3, 8, 8), np.uint8))


def test_where_a_learner_computed_is_not_stored():
    for learner in (Multiscale(device="cuda"), Embedding(device="cuda")):
        assert from_json(to_json(learner)).device is None
        assert to_json(learner) == to_json(replace(learner, device="cpu"))


def test_the_encoder_of_h2e_sees_stain_and_not_the_company():
    rng = np.random.default_rng(0)
    images = rng.integers(60, 256, (18, 3, 32, 32), dtype=np.uint8)
    features = shell_features(images)
    assert features.shape == (18, 480)
    assert np.isfinite(features).all()
    np.testing.assert_allclose(shell_features(images[5:6]), features[5:6], rtol=1e-3, atol=1e-4)
    assert np.ptp(features, axis=0).max() > 0.1
    assert from_json(to_json(Embedding())) == Embedding()  # stored by name, so that it needs not be passed again


def test_the_compiled_activation_of_the_encoder_is_that_of_torch():
    modules = [m for m in shell_network(torch.device("cpu")).modules() if isinstance(m, torch.nn.GroupNorm)]
    assert len(modules) == 18
    generator = torch.Generator().manual_seed(0)
    for module in modules[::5]:
        x = (
            torch.randn(3, module.num_channels, 7, 5, generator=generator)
            * torch.tensor([1e-3, 1.0, 1e3])[:, None, None, None]
        )
        x[0, :, 0, 0] += 50
        x = x.contiguous(memory_format=torch.channels_last)
        weights = module.weight.double(), module.bias.double()
        normalized = torch.nn.functional.group_norm(x.double(), module.num_groups, *weights, module.eps)
        expected = torch.nn.functional.mish(normalized)
        np.testing.assert_allclose(module(x).numpy(), expected.detach().numpy(), rtol=1e-5, atol=1e-5)


def test_the_features_of_the_encoder_are_means_and_deviations_of_its_maps_whatever_the_batch():
    tiles = np.random.default_rng(0).integers(0, 256, (19, 3, 16, 16), np.uint8)
    network = shell_network(torch.device("cpu"))
    with torch.inference_mode():
        maps = network(torch.from_numpy(_stain_channels(tiles)).contiguous(memory_format=torch.channels_last))
        expected = [
            f(m.double()) for m in maps for f in (lambda m: m.mean((2, 3)), lambda m: m.std((2, 3), correction=0))
        ]
    features = shell_features(tiles)
    np.testing.assert_allclose(features, torch.cat(expected, dim=1).numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(shell_features(tiles[5:7]), features[5:7])


@pytest.mark.parametrize("encoder", ["shell", torch.nn.Conv2d(3, 4, 3)], ids=["shell", "module"])
def test_features_in_bfloat16_are_near_those_in_float32_and_cached_apart(encoder, tmp_path):
    rng = np.random.default_rng(0)
    exact, rounded = (Embedding(encoder, px=16, precision=name, cache=tmp_path) for name in ("float32", "bfloat16"))
    assert exact == Embedding(encoder, px=16, cache=tmp_path)
    tiles = [rng.integers(0, 256, (2, 3, 16, 16), dtype=np.uint8) for _ in exact.views]
    expected, features = exact.extract_features(tiles), rounded.extract_features(tiles)
    assert expected.dtype == features.dtype == np.float32
    assert 0 < abs(features - expected).max() < 0.05 * expected.std()
    for learner, again in ((exact, expected), (rounded, features)):
        np.testing.assert_array_equal(learner.extract_features(tiles), again)
        np.testing.assert_array_equal(replace(learner, cache=None).extract_features(tiles), again)


def test_only_the_network_computes_in_bfloat16_and_means_are_exact():
    images = np.random.default_rng(0).integers(0, 256, (1, 3, 32, 32), dtype=np.uint8)
    module = torch.nn.Conv2d(3, 4, 3)
    module.pretrained_cfg = {"mean": (0, 0, 0), "std": (1, 1, 1)}
    x = torch.from_numpy(images).float() / 255
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        maps = module(x)
        assert maps.dtype == torch.bfloat16
        assert {level.dtype for level in shell_network(torch.device("cpu"))(x)} == {torch.float32}
    features = as_function(module, "bfloat16")(images)
    np.testing.assert_allclose(features, maps.double().mean((2, 3)).numpy(), rtol=1e-5, atol=1e-7)


def test_precision_is_stored_and_what_was_saved_without_it_is_float32():
    for learner in (Embedding(precision="bfloat16"), Embedding(torch.nn.Flatten(), precision="bfloat16")):
        assert from_json(to_json(learner)).precision == "bfloat16"
    before = json.loads(to_json(Embedding()))
    assert before.pop("precision") == "float32"
    assert from_json(json.dumps(before)) == Embedding()


def test_a_precision_that_nothing_would_compute_in_is_refused():
    for wrong in ("half", 16, torch.bfloat16):
        with pytest.raises(ValueError, match=r"precision must be one of \['float32', 'bfloat16', 'auto'\], got "):
            Embedding(precision=wrong)
    with pytest.raises(ValueError, match="precision must be 'float32' with an encoder that is a callable, got 'bf"):
        Embedding(colours, precision="bfloat16")
    with pytest.raises(ValueError, match="precision must be 'float32' with obsm, .*, got 'bfloat16'"):
        Embedding(obsm="X_uni", precision="bfloat16")


def test_features_are_cached_by_what_was_seen(tmp_path):
    calls = []
    learner = Embedding(encoder=lambda images: calls.append(1) or colours(images), px=4, subtiles=True, cache=tmp_path)
    rng = np.random.default_rng(0)
    views = [rng.integers(0, 256, (3, 3, v.px, v.px), dtype=np.uint8) for v in learner.views]
    first, n = learner.extract_features(views), len(calls)
    np.testing.assert_array_equal(learner.extract_features(views), first)
    assert len(calls) == n == 1 + 11  # noise, once; tile, nine subtiles, surroundings
    next(tmp_path.iterdir()).write_bytes(b"cut off")
    np.testing.assert_array_equal(learner.extract_features(views), first)
    assert len(calls) == n + 1
    learner.extract_features([view[:2] for view in views])
    assert len(calls) == n + 1 + 11


def test_encoders_that_share_a_cache_and_a_name_keep_their_own_features(tmp_path):
    encoders = [lambda images: images.mean((2, 3)), lambda images: images.max((2, 3)).astype(float)]
    views = [np.random.default_rng(0).integers(0, 256, (3, 3, v.px, v.px), np.uint8) for v in Embedding(px=4).views]
    for encoder in encoders:
        remembering = Embedding(encoder=encoder, px=4, cache=tmp_path)
        np.testing.assert_array_equal(
            remembering.extract_features(views), Embedding(encoder=encoder, px=4).extract_features(views)
        )


def test_a_model_of_timm_is_made_once_and_when_it_is_first_used(monkeypatch):
    made = []

    def create_model(name, *, pretrained, num_classes):
        made.append(name)
        return torch.nn.Flatten()

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))
    learner = Embedding(encoder="timm:a_model_for_this_test", px=4)
    assert made == []
    for _ in range(2):
        learner.extract_features([np.zeros((2, 3, v.px, v.px), np.uint8) for v in learner.views])
    assert made == ["a_model_for_this_test"]


def test_images_are_scaled_as_a_module_was_trained():
    module, images = torch.nn.Flatten(), np.full((1, 3, 2, 2), 255, np.uint8)
    imagenet = np.repeat((1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225], 4)
    np.testing.assert_allclose(as_function(module)(images)[0], imagenet, rtol=1e-5)
    module.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    np.testing.assert_allclose(as_function(module)(images), 1)


def test_settings_that_make_no_sense_are_refused(cohort):
    for make in (lambda: Texture("forest"), lambda: Texture(k=0), lambda: Texture(views=()), lambda: Coordinates(0)):
        with pytest.raises(ValueError, match=r"must (be|name) .*, got"):
            make()
    with pytest.raises(ValueError, match="extent"):
        Multiscale(extent=0)
    _, y, groups, _ = cohort
    with pytest.raises(ValueError, match="x must be finite"):
        Texture().fit(np.full((24, 3), np.nan), y, groups)
    model = Texture().fit(np.random.default_rng(0).normal(size=(24, 3)), y, groups)
    with pytest.raises(ValueError, match="trained on 3 features"):
        model.predict(np.zeros((2, 4)))


def test_the_mean_weighs_groups_not_spots():
    y = np.array([[0.0], [0.0], [0.0], [1.0]])
    assert Mean().fit(np.zeros((4, 2)), y, np.array(list("AAAB"))).predict(np.zeros((2, 2))).tolist() == [[0.5], [0.5]]


def test_the_network_learner_scales_targets_back(cohort):
    shade, y, groups, _ = cohort
    x = np.broadcast_to(shade, (24, 3, 26, 26)).astype(np.uint8)
    near, far = (
        Multiscale(**TINY).fit(x, (y * s + o).astype(np.float32), groups, progress=False).predict(x)
        for s, o in ((1, 0), (100, 5000))
    )
    np.testing.assert_allclose(far, near * 100 + 5000, rtol=1e-3)
    history = Multiscale(**TINY).fit(x, y, groups, progress=False).history
    assert [set(row) for row in history] == [{"epoch", "loss", "seconds"}]


@pytest.mark.parametrize(("symmetries", "k"), [(True, 8), (False, 1)])
def test_the_network_predicts_the_mean_over_the_symmetries_of_a_tile(cohort, symmetries, k):
    shade, y, groups, _ = cohort
    x = (np.broadcast_to(shade, (24, 3, 26, 26)) * np.linspace(0.5, 1, 26)).astype(np.uint8)
    model = Multiscale(**TINY, symmetries=symmetries).fit(x, (100 * y).astype(np.float32), groups, progress=False)
    predictions = model.tta_predictions(x)
    assert predictions.shape == (k, *y.shape)
    np.testing.assert_array_equal(model.predict(x), predictions.mean(axis=0))
    assert abs(predictions.mean() - 100 * y.mean()) < 50  # in the unit of y
    assert (np.ptp(predictions, axis=0).max() > 0) == symmetries


def patterns(n=32):
    """Tiles of two donors, and targets that have to do with their shade."""
    rng = np.random.default_rng(0)
    x = (rng.integers(0, 200, (n, 3, 1, 1)) + rng.integers(0, 56, (n, 3, 26, 26))).astype(np.uint8)
    return x, (x.mean((2, 3)) / 50).astype(np.float32), np.repeat(np.array(["A", "B"]), [n * 3 // 4, n // 4])


def weights_of(learner, x, y, groups):
    model = learner.fit(x, y, groups, progress=False)
    return {name: a for name, a in model.arrays().items() if name.startswith("network.")}


def test_stopping_keeps_the_epoch_that_is_best_on_a_training_group(monkeypatch):
    x, y, groups = patterns()
    y[groups == "B"] = 5 - y[groups == "B"]  # the other way round there: the longer the training, the worse
    seen = []
    look = _multiscale.BestEpoch.__call__
    monkeypatch.setattr(_multiscale.BestEpoch, "__call__", lambda self, n: (look(self, n), seen.append(self)))
    learner = Multiscale(**TINY | {"epochs": 6, "lr": 3e-3, "ema": None, "symmetries": False}, stopping="inner group")
    model = learner.fit(x, y, groups, progress=False)
    (best,) = set(seen)
    assert len(best.errors) == len(model.history) == 6
    assert min(best.errors) < best.errors[-1]  # else the choice would be trivial
    kept = (((model.predict(x[groups == "B"]) - y[groups == "B"]) / model.scale) ** 2).mean()
    assert kept == pytest.approx(min(best.errors), rel=1e-3)
    np.testing.assert_array_equal(best.tiles, x[groups == "B"])


def test_the_group_that_stops_a_training_is_not_trained_on():
    x, y, groups = patterns()
    learner = Multiscale(**TINY, stopping="inner group")  # one epoch: there is nothing to choose
    other = np.where((groups == "B")[:, None, None, None], 255 - x, x)
    stopped, again = weights_of(learner, x, y, groups), weights_of(learner, other, y, groups)
    plain = weights_of(Multiscale(**TINY), x, y, groups)
    for name, value in stopped.items():
        np.testing.assert_array_equal(again[name], value)
    assert any(not np.array_equal(plain[name], value) for name, value in stopped.items())


def test_with_one_group_there_is_none_to_stop_on():
    x, y, _ = patterns()
    one = np.full(len(x), "A")
    plain = weights_of(Multiscale(**TINY), x, y, one)
    for name, value in weights_of(Multiscale(**TINY, stopping="inner group"), x, y, one).items():
        np.testing.assert_array_equal(value, plain[name])


def test_an_unknown_way_to_stop_is_refused():
    with pytest.raises(ValueError, match=r"stopping must be one of \['all epochs', 'inner group'\], got 'early'"):
        Multiscale(stopping="early")
