"""The network is the published one, and training is reproducible."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch

from h2e._learners.multiscale import TrainingConfig
from h2e._learners.network import MultiscaleNetwork, NetworkConfig, build, fuse_batchnorm, subtiles
from h2e._learners.training import arrays_of, augment, mixed_precision, network_of, predict_views, symmetry_table, train


def predict(network, tiles, **options):
    return predict_views(network, tiles, **options).mean(axis=0)


SMALL = NetworkConfig(n_targets=3, tile_px=26, subtile_px=16, encoders=("subtiles", "center"))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    tiles = rng.integers(0, 256, (8, 3, 1, 1)) + rng.integers(-40, 40, (8, 3, 26, 26))
    return tiles.clip(0, 255).astype(np.uint8), rng.normal(size=(8, 3)).astype(np.float32)


def shapes_of(network, tiles):
    """Shapes that every module returns, by module name."""
    shapes, hooks = {}, []
    for name, module in network.named_modules():
        hooks.append(module.register_forward_hook(lambda m, i, out, name=name: shapes.update({name: tuple(out.shape)})))
    with torch.inference_mode():
        network.eval()(tiles)
    return shapes


def test_the_network_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in MultiscaleNetwork(NetworkConfig()).parameters()) == 6_679_843


def test_every_intermediate_has_the_published_shape():
    shapes = shapes_of(build(NetworkConfig(), seed=0), torch.zeros(2, 3, 78, 78, dtype=torch.uint8))
    # conv-BN-SiLU (0-2), maxpool (3), blocks (4, 5), maxpool (6), blocks (7, 8), …
    tile = {2: (2, 32, 78, 78), 3: (2, 32, 39, 39), 5: (2, 64, 39, 39), 6: (2, 64, 19, 19), 8: (2, 128, 19, 19)}
    tile |= {9: (2, 128, 9, 9), 11: (2, 256, 9, 9)}
    for index, shape in tile.items():
        assert shapes[f"tile.convolutions.{index}"] == shape
    for name, n in (("subtiles", 18), ("center", 2)):
        small = {2: (n, 32, 26, 26), 3: (n, 32, 13, 13), 5: (n, 64, 13, 13), 6: (n, 64, 6, 6), 8: (n, 128, 6, 6)}
        for index, shape in small.items():
            assert shapes[f"{name}.convolutions.{index}"] == shape
        assert shapes[f"{name}.mlp.0"] == (2, 1792)  # after the mean over nine, before the MLP
        assert [shapes[f"{name}.mlp.{i}"] for i in (1, 4)] == [(2, 256), (2, 128)]
        assert f"{name}.convolutions.9" not in shapes
    assert shapes["tile.mlp.0"] == (2, 2560)
    assert [shapes[f"tile.mlp.{i}"] for i in (1, 4, 7)] == [(2, 512), (2, 256), (2, 128)]
    linears = [m for m in build(NetworkConfig(), seed=0).decoder if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linears] == [(384, 256), (256, 128), (128, 64), (64, 35)]
    assert shapes[""] == (2, 35)


def test_a_block_adds_its_input_after_the_last_activation():
    network = build(NetworkConfig(), seed=0).eval()
    block = network.tile.convolutions[5]  # 64 → 64: the shortcut is the input
    x = torch.randn(1, 64, 5, 5)
    conv1, norm1, _, conv2, norm2, _ = block.body
    by_hand = torch.nn.functional.silu(norm2(conv2(torch.nn.functional.silu(norm1(conv1(x)))))) + x
    torch.testing.assert_close(block(x), by_hand)


def test_the_nine_subtiles_tile_the_tile_and_the_fifth_is_the_centre():
    tile = torch.arange(78 * 78).reshape(1, 1, 78, 78)
    nine = subtiles(tile, 26)
    assert torch.equal(nine[0, 4, 0], tile[0, 0, 26:52, 26:52])
    rows = [torch.cat(list(nine[0, 3 * r : 3 * r + 3, 0]), dim=1) for r in range(3)]
    assert torch.equal(torch.cat(rows), tile[0, 0])


def test_the_three_encoders_see_tile_subtiles_and_centre():
    network = build(NetworkConfig(n_targets=2), seed=0).eval()
    tile = torch.full((1, 3, 78, 78), 200, dtype=torch.uint8)
    corner, middle = tile.clone(), tile.clone()
    corner[:, :, :26, :26] = 0
    middle[:, :, 26:52, 26:52] = 0
    seen = {}
    for name in ("tile", "subtiles", "center"):
        getattr(network, name).register_forward_hook(lambda m, i, out, name=name: seen.update({name: out}))

    def encoded(x):
        with torch.inference_mode():
            network(x)
        return dict(seen)

    plain, at_corner, at_middle = encoded(tile), encoded(corner), encoded(middle)
    assert torch.equal(plain["center"], at_corner["center"])
    assert not torch.equal(plain["center"], at_middle["center"])
    for name in ("tile", "subtiles"):
        assert not torch.allclose(plain[name], at_corner[name])
    # the mean over subtiles does not know where the change is, up to rounding
    torch.testing.assert_close(at_corner["subtiles"], at_middle["subtiles"], rtol=1e-4, atol=1e-5)


def with_statistics(network):
    """Batch normalizations as after a training."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values in (module.weight.data, module.running_var):
                values.uniform_(0.5, 2, generator=generator)
            for values in (module.bias.data, module.running_mean):
                values.normal_(generator=generator)
    return network.eval()


def test_folding_batch_normalization_into_convolutions_changes_no_feature():
    network = with_statistics(build(NetworkConfig(n_targets=3), seed=0))
    before, without = arrays_of(network), fuse_batchnorm(network)
    tiles = torch.randn((2, 3, 78, 78), generator=torch.Generator().manual_seed(0))
    for name, side in (("tile", 78), ("subtiles", 26), ("center", 26)):
        with torch.inference_mode():
            expected, got = (getattr(n, name).convolutions(tiles[..., :side, :side]) for n in (network, without))
        assert expected.std() > 0.1
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert all(np.array_equal(before[name], value) for name, value in arrays_of(network).items())


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_pixels_are_laid_out_as_the_weights_are(layout):
    network, seen = build(SMALL, seed=0).to(memory_format=layout).eval(), []
    for name in ("subtiles", "center"):
        last = getattr(network, name).convolutions
        last.register_forward_hook(lambda m, i, out: seen.append(out.is_contiguous(memory_format=layout)))
    with torch.inference_mode():
        network(torch.zeros(2, 3, 26, 26, dtype=torch.uint8))
    assert seen == [True, True]


def test_building_neither_uses_nor_changes_the_global_random_state():
    state = torch.random.get_rng_state()
    first, second, other = build(SMALL, seed=1), build(SMALL, seed=1), build(SMALL, seed=2)
    assert torch.equal(state, torch.random.get_rng_state())
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


def test_initial_weights_follow_the_distribution_of_pytorch():
    ours, theirs = build(NetworkConfig(), seed=0).state_dict(), MultiscaleNetwork(NetworkConfig()).state_dict()
    for name, value in theirs.items():
        if value.numel() > 1000:
            assert float(ours[name].std()) == pytest.approx(float(value.std()), rel=0.1)


def test_training_is_reproducible_and_leaves_the_global_random_state(data):
    tiles, y = data
    state, runs = torch.random.get_rng_state(), []
    for seed in (0, 0, 1):
        network, _ = train(SMALL, tiles, y, settings=TrainingConfig(epochs=2, batch_size=4), seed=seed, progress=False)
        runs.append(predict(network, tiles))
    assert torch.equal(state, torch.random.get_rng_state())
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.allclose(runs[0], runs[2])


def test_the_network_overfits_eight_tiles(data):
    tiles, y = data
    settings = TrainingConfig(epochs=40, stain_jitter=0, symmetries=False, ema=None, lr=2e-3)
    config = NetworkConfig(n_targets=3, tile_px=26, subtile_px=16, dropout=0, encoders=("center",))
    network, history = train(config, tiles, y, settings=settings, progress=False)
    assert history[-1]["loss"] < 0.05 < 0.5 < history[0]["loss"]
    assert [h["epoch"] for h in history] == list(range(1, 41))
    assert np.corrcoef(predict(network, tiles, symmetries=False).ravel(), y.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("symmetries", [True, False])
def test_predictions_depend_neither_on_batch_size_nor_on_company(data, symmetries, monkeypatch):
    tiles, network = data[0], build(SMALL, seed=0)
    together = predict(network, tiles, symmetries=symmetries)
    np.testing.assert_array_equal(predict(network, tiles[5:6], symmetries=symmetries), together[5:6])
    np.testing.assert_array_equal(predict(network, tiles[::-1], symmetries=symmetries), together[::-1])
    for batch in (8, 24):
        monkeypatch.setattr("h2e._learners.training.BATCH", batch)
        np.testing.assert_allclose(predict(network, tiles, symmetries=symmetries), together, atol=2e-3)


@pytest.mark.parametrize("turn", [lambda t: np.rot90(t, axes=(2, 3)), lambda t: t[..., ::-1]], ids=["turn", "flip"])
def test_predictions_do_not_depend_on_orientation(data, turn):
    tiles, network = data[0], build(SMALL, seed=0)
    turned = np.ascontiguousarray(turn(tiles))
    np.testing.assert_allclose(predict(network, turned), predict(network, tiles), atol=1e-5)
    assert not np.allclose(
        predict(network, turned, symmetries=False), predict(network, tiles, symmetries=False), atol=1e-5
    )


def test_the_eight_symmetries_are_those_of_the_square():
    image = np.arange(25).reshape(5, 5)
    seen = {tuple(image.ravel()[row]) for row in symmetry_table(5).numpy()}
    expected = {tuple(np.rot90(m, k).ravel()) for m in (image, image[:, ::-1]) for k in range(4)}
    assert seen == expected
    assert len(seen) == 8


def test_each_tile_of_a_batch_is_augmented_by_its_own_draw():
    tile = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 9, 9), dtype=np.uint8)).expand(
        64, -1, -1, -1
    )
    turned = augment(tile, torch.Generator().manual_seed(0), stain_jitter=0)
    variants = {tuple(row.tolist()) for row in turned.flatten(1)}
    table = symmetry_table(9)
    assert variants == {tuple(tile[0].flatten(1)[:, row].flatten().tolist()) for row in table}
    jittered = augment(tile, torch.Generator().manual_seed(0), symmetries=False, stain_jitter=0.1)
    assert len({tuple(row.tolist()) for row in jittered.flatten(1)}) == 64
    assert jittered.min() >= 0
    assert jittered.max() <= 255


def test_no_jitter_is_the_limit_of_small_jitter():
    tile = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 3, 9, 9), dtype=np.uint8))
    jittered = augment(tile, torch.Generator().manual_seed(0), symmetries=False, stain_jitter=1e-6)
    torch.testing.assert_close(jittered, tile.float(), atol=0.02, rtol=0)


def test_the_moving_average_is_what_is_kept(data):
    tiles, y = data
    runs = {
        ema: train(SMALL, tiles, y, settings=TrainingConfig(epochs=3, ema=ema), progress=False) for ema in (None, 0.9)
    }
    assert [h["loss"] for h in runs[None][1]] == [h["loss"] for h in runs[0.9][1]]  # it does not change the training
    assert not np.allclose(predict(runs[None][0], tiles), predict(runs[0.9][0], tiles))


def test_the_moving_average_forgets_the_first_weights_of_a_short_run(data):
    tiles, y = (each[:4] for each in data)
    config = NetworkConfig(n_targets=3, tile_px=26, subtile_px=16, dropout=0, encoders=("center",))
    spread = {}
    for ema in (TrainingConfig().ema, 0.99):
        settings = TrainingConfig(epochs=60, batch_size=2, ema=ema, lr=2e-3, stain_jitter=0, symmetries=False)
        network, _ = train(config, tiles, y, settings=settings, progress=False)
        spread[ema] = predict(network, tiles, symmetries=False).std() / y.std()
    assert spread[TrainingConfig().ema] > 0.75  # after 120 steps; without an average, four tiles are learned by heart
    assert spread[0.99] < 0.5  # which is why it is not the default


def test_weights_survive_as_arrays(data):
    network, _ = train(
        NetworkConfig(n_targets=3, tile_px=26, subtile_px=16), *data, settings=TrainingConfig(epochs=1), progress=False
    )
    arrays = arrays_of(network)
    assert all(isinstance(a, np.ndarray) for a in arrays.values())
    np.testing.assert_array_equal(predict(network_of(network.config, arrays), data[0]), predict(network, data[0]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_targets": 0}, "n_targets must be at least 1"),
        ({"subtile_px": 80}, "tile_px=78, subtile_px=80"),
        ({"subtile_px": 25}, "both even or both odd"),
        ({"dropout": 1.0}, "dropout"),
        ({"encoders": ("tiles",)}, "encoders"),
    ],
)
def test_a_config_that_makes_no_network_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        NetworkConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"encoders": ("tile",)},
        {"encoders": ("subtiles", "center")},
        {"residual": False},
        {"pyramid_pooling": False},
        {"tile_px": 104},
        {"tile_px": 52},
        {"subtile_px": 52},
        {"tile_px": 26},
        {"n_targets": 8},
    ],
    ids=str,
)
def test_every_ablation_builds_and_runs(settings):
    config = NetworkConfig(**settings)
    with torch.inference_mode():
        out = build(config, seed=0).eval()(torch.zeros(1, 3, config.tile_px, config.tile_px))
    assert out.shape == (1, config.n_targets)


@pytest.mark.parametrize("settings", [{"epochs": 0}, {"lr": 0.0}, {"ema": 1.0}, {"batch_size": 1}], ids=str)
def test_training_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        TrainingConfig(**settings)


def test_wrong_tiles_and_targets_are_refused(data):
    tiles, y = data
    settings = TrainingConfig(epochs=1)
    with pytest.raises(ValueError, match=r"uint8 of shape \(n, 3, 26, 26\)"):
        train(SMALL, tiles.astype(np.float32), y, settings=settings)
    with pytest.raises(ValueError, match=r"8 tiles \(at least 2\) and 3 targets"):
        train(SMALL, tiles, y[:, :2], settings=settings)
    with pytest.raises(ValueError, match="finite"):
        train(SMALL, tiles, np.full_like(y, np.nan), settings=settings)
    with pytest.raises(ValueError, match="uint8"):
        predict(build(SMALL, seed=0), tiles[:, :2])


def test_no_tiles_give_no_predictions():
    assert predict(build(SMALL, seed=0), np.zeros((0, 3, 26, 26), np.uint8)).shape == (0, 3)


def test_a_network_predicts_in_float32_whatever_the_processor_trains_in(data, monkeypatch):
    def trained(context) -> np.ndarray:
        monkeypatch.setattr("h2e._learners.training.mixed_precision", lambda device: context)
        network, history = train(SMALL, *data, settings=TrainingConfig(epochs=1), progress=False)
        assert np.isfinite(history[0]["loss"])
        return predict(network, data[0]), predict(build(SMALL, seed=0), data[0])

    (fine, same), (coarse, again) = (
        trained(context) for context in (contextlib.nullcontext(), torch.autocast("cpu", dtype=torch.bfloat16))
    )
    np.testing.assert_array_equal(again, same)
    np.testing.assert_allclose(coarse, fine, atol=0.05)
    assert not np.array_equal(coarse, fine)


@pytest.mark.parametrize(
    ("processor", "amx", "fast"),
    [
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True}, False, True),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": False}, False, False),
        ({"cpu_name": "INTEL(R) XEON(R)", "avx512_bf16": True}, False, False),
        ({"cpu_name": "INTEL(R) XEON(R)", "avx512_bf16": True}, True, True),
        ({}, False, False),
    ],
)
def test_bfloat16_is_used_by_a_fixed_rule(processor, amx, fast, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    with mixed_precision(torch.device("cpu")):
        assert torch.is_autocast_enabled("cpu") is fast


def test_turning_a_tile_permutes_the_predictions_of_its_symmetries(data):
    tiles, network = data[0], build(SMALL, seed=0)
    predictions = predict_views(network, tiles)
    assert predictions.shape == (8, 8, 3)
    np.testing.assert_array_equal(predictions.mean(axis=0), predict(network, tiles))
    turned = predict_views(network, np.rot90(tiles, axes=(2, 3)).copy())
    np.testing.assert_allclose(turned[:4], np.roll(predictions[:4], -1, axis=0), atol=1e-5)
    assert np.ptp(predictions, axis=0).min() > 1e-5  # they differ
    np.testing.assert_allclose(predict_views(network, tiles, symmetries=False), predictions[:1], atol=1e-5)


def test_after_each_epoch_the_network_that_would_be_kept_can_be_looked_at(data):
    seen = []
    settings = TrainingConfig(epochs=3, ema=0.5)
    network, _ = train(
        SMALL,
        *data,
        settings=settings,
        progress=False,
        after_epoch=lambda n: seen.append(arrays_of(n)["decoder.0.bias"]),
    )
    assert len(seen) == 3
    assert not np.array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(seen[2], arrays_of(network)["decoder.0.bias"])
