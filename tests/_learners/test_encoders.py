"""Encoders by name, with stand-ins for timm and LazySlide's models; the real ones are in tests/encoders."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import h2e
from h2e._learners.encoders import MissingEncoder
from h2e._learners.registry import from_json, to_json
from h2e._learners.shell import in_batches
from h2e.tl import Embedding, Encoder, View

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8), np.uint8)
CONFIG = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2), "input_size": (3, 8, 8), "interpolation": "bilinear"}


class Transformer(torch.nn.Module):
    """Two tokens of patches after a class token, all three means of colours; takes images of 8 px only."""

    num_prefix_tokens = 1

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.patch_embed = SimpleNamespace(img_size=(8, 8))
        self.pretrained_cfg = dict(CONFIG)
        self.scale = torch.nn.Parameter(torch.tensor(scale))

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[2:] == (8, 8)
        halves = [x[..., :4], x[..., 4:]]
        return self.scale * torch.stack([x.mean((2, 3)), *(half.amax((2, 3)) for half in halves)], dim=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_features(x)[:, 0]


class OfRegistry:
    """An image encoder with LazySlide's protocol."""

    license, is_gated, param_size = ["MIT", "CC-BY-4.0"], True, "12"

    def __init__(self) -> None:
        self.model = torch.nn.Linear(3, 3, bias=False)

    def to(self, device: torch.device) -> OfRegistry:
        self.model.to(device)
        return self

    def get_transform(self):
        return lambda images: images.float() / 255

    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        return image.mean((2, 3))

    def encode_image_dense(self, image: torch.Tensor) -> SimpleNamespace:
        tokens = image.flatten(2).transpose(1, 2)
        return SimpleNamespace(cls_token=tokens[:, 0], patch_tokens=tokens[:, 1:])


@pytest.fixture
def made(monkeypatch) -> list[tuple]:
    """The models that the stand-ins were asked for."""
    calls: list[tuple] = []

    def create_model(name: str, **arguments: object) -> torch.nn.Module:
        calls.append((name, arguments))
        if "offline" in name:
            msg = "We couldn't connect to huggingface.co. Check your connection.\nMore lines."
            raise OSError(msg)
        return Transformer(arguments.get("scale", 1.0))

    models = SimpleNamespace(
        get_pretrained_cfg=lambda _: SimpleNamespace(to_dict=lambda: CONFIG),
        load_model_config_from_hf=lambda _: (CONFIG, "name", {}),
    )
    layers = SimpleNamespace(SwiGLUPacked=Transformer)
    registry = {"uni2": OfRegistry, "gpfm": OfRegistry, "text": object}
    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model, models=models))
    monkeypatch.setitem(sys.modules, "timm.models", models)
    monkeypatch.setitem(sys.modules, "timm.layers", layers)
    monkeypatch.setitem(sys.modules, "lazyslide_models", SimpleNamespace(MODEL_REGISTRY=registry, __spec__=object()))
    monkeypatch.setattr("h2e._learners.encoders._network", h2e._learners.encoders._network.__wrapped__)
    return calls


def test_the_centre_is_cut_at_the_scale_that_the_encoder_was_trained_on_whatever_the_spacing():
    learner = Embedding("lazyslide:uni2")
    assert learner.views == (View(3, 256), View(128, 256, "um"), View(7, 256))
    assert learner.views[1].extent_um(100) == learner.views[1].extent_um(200) == 256 * 0.5
    assert Embedding("timm:hf-hub:paige-ai/VIRCHOW2", tile=0, surroundings=0).views == (View(112, 224, "um"),)
    near = Embedding("lazyslide:uni2", subtiles=True).views[1]
    assert near == View(3 * 128, 3 * 256, "um")
    own = Embedding(lambda images: images, px=10, um_per_px=2, surroundings=0)
    assert own.views == (View(3, 10), View(20, 10, "um"))
    assert Embedding("lazyslide:uni2", um_per_px=0).views[1] == View(1, 256)
    assert Embedding().views == (View(3, 48), View(1, 48), View(7, 48))


def test_views_that_are_left_out_are_not_encoded():
    learner = Embedding(lambda images: images.mean((2, 3)), px=8, tile=0)
    views = [np.full((2, 3, 8, 8), shade, np.uint8) for shade in (1, 2)]
    np.testing.assert_array_equal(learner.extract_features(views), [[1, 1, 1, 2, 2, 2]] * 2)


def test_a_model_of_timm_is_given_its_own_size_scaling_and_arguments(made):
    arguments = {"mlp_layer": "SwiGLUPacked", "scale": 2.0, "sizes": [8, 8]}
    encoder = Encoder("timm:vit", model_args=arguments)
    assert encoder.px == 8
    assert Encoder("timm:vit", model_args={"img_size": [16, 16]}).px == Encoder("timm:vit", px=16).px == 16
    x = (IMAGES / 255 - np.array(CONFIG["mean"])[:, None, None]) / 0.2
    np.testing.assert_allclose(encoder.build()(IMAGES), 2 * x.mean((2, 3)), rtol=1e-5, atol=1e-5)
    given = {"mlp_layer": Transformer, "scale": 2.0, "sizes": (8, 8), "pretrained": True, "num_classes": 0}
    assert made == [("vit", given)]
    large = np.repeat(np.repeat(IMAGES, 2, axis=2), 2, axis=3)
    np.testing.assert_allclose(encoder.build()(large), encoder.build()(IMAGES), atol=0.1)


def test_tokens_are_pooled_as_it_is_asked_for(made):
    cls, mean, both = (Encoder("timm:vit", pool=pool).build()(IMAGES) for pool in ("cls", "mean", "cls+mean"))
    np.testing.assert_array_equal(both, np.hstack([cls, mean]))
    assert (mean > cls).all()  # of the stand-in the maxima
    tokens = Encoder("lazyslide:uni2", pool="mean").build()(IMAGES)
    np.testing.assert_allclose(tokens, (IMAGES / 255).reshape(3, 3, -1)[:, :, 1:].mean(2), rtol=1e-5)
    with pytest.raises(ValueError, match="pool must be None for an encoder without such tokens, got 'cls'"):
        h2e._learners.encoder_models.as_function(torch.nn.Flatten(), pool="cls")(IMAGES)
    with pytest.raises(ValueError, match="gives tokens and not features; say how to pool them"):
        h2e._learners.encoder_models.as_function(torch.nn.Flatten(2))(IMAGES)


def test_an_encoder_of_lazyslide_needs_consent_to_run_code_and_a_scale_that_is_known(made):
    np.testing.assert_allclose(Encoder("lazyslide:uni2").build()(IMAGES), IMAGES.mean((2, 3)) / 255, rtol=1e-5)
    with pytest.raises(ValueError, match=r"runs code .*Encoder\('lazyslide:gpfm', trust_remote_code=True\)"):
        Encoder("lazyslide:gpfm").build()
    assert Encoder("lazyslide:gpfm", trust_remote_code=True).build()(IMAGES).shape == (3, 3)
    with pytest.raises(ValueError, match="um_per_px of encoder 'lazyslide:text' is not known"):
        Encoder("lazyslide:text")
    with pytest.raises(ValueError, match=r"one of LazySlide's image encoders \['gpfm', 'uni2'\], got 'lazyslide:text'"):
        Encoder("lazyslide:text", um_per_px=0.5, trust_remote_code=True).build()


def test_what_went_wrong_and_what_to_do_is_one_sentence(made, monkeypatch):
    with pytest.raises(RuntimeError, match="'timm:offline' could not be loaded .OSError: We couldn't") as error:
        Encoder("timm:offline").build()
    assert "\n" not in str(error.value)
    assert "hf auth login" in str(error.value)
    for name in ("timm", "lazyslide_models"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("timm:vit", "lazyslide:uni2"):
        with pytest.raises(ImportError, match=rf"'{name}' needs packages .*: pip install 'h2e\[encoders\]'"):
            Encoder(name, px=8).build()


@pytest.mark.parametrize(
    "wrong",
    [{"name": "vit"}, {"name": "timm:"}, {"pool": "max"}, {"name": "shell", "pool": "cls"},
     {"name": "lazyslide:uni2", "weights": "file"}],
)  # fmt: skip
def test_settings_of_an_encoder_that_make_no_sense_are_refused(wrong: dict):
    with pytest.raises(ValueError, match=r"(must|are of) .*, got"):
        Encoder(**({"name": "timm:vit", "px": 8} | wrong))


def test_threads_share_one_model(made, monkeypatch):
    monkeypatch.setattr("h2e._learners.encoders._network", cache(h2e._learners.encoders._network))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: Encoder("timm:vit", px=8).build()(IMAGES), range(4)))
    assert len(made) == 1


def test_what_describes_an_encoder_is_stored_and_what_the_user_says_is_not(made):
    encoder = Encoder("timm:vit", pool="cls", model_args={"scale": 2.0}, weights=Path("file"), um_per_px=0.25)
    learner = Embedding(encoder)
    restored = from_json(to_json(learner))
    assert restored.encoder == MissingEncoder(
        Encoder("timm:vit", px=8, pool="cls", model_args=(("scale", 2.0),), um_per_px=0.25)
    )
    assert restored.views == learner.views
    assert to_json(restored) == to_json(learner)
    with pytest.raises(ValueError, match=r"'timm:vit'; pass it: .*, or allow_download=True"):
        restored.encoder(IMAGES)
    passed = restored.encoder.replaced_by(Encoder("timm:vit", px=8, weights="mine"))
    assert (passed.pool, passed.weights) == ("cls", "mine")
    assert restored.encoder.replaced_by("timm:vit") == restored.encoder.encoder
    assert restored.encoder.replaced_by("timm:other").name == "timm:other"
    assert made == []


def test_other_weights_than_those_that_were_trained_on_are_refused(made):
    pinned = Embedding("timm:vit").pinned.encoder
    assert pinned == Encoder("timm:vit")
    assert pinned.build()(IMAGES).shape == (3, 3)
    with pytest.raises(ValueError, match="weights of encoder 'timm:vit' are others than"):
        Encoder("timm:vit", model_args={"scale": 3.0}, sha256=pinned.sha256).build()
    assert MissingEncoder(pinned).replaced_by("timm:other").sha256 == pinned.sha256
    assert Encoder("shell").digest() == Encoder("shell").digest() != pinned.sha256


def test_fewer_images_at_a_time_are_encoded_where_a_gpu_has_not_the_memory():
    sizes = []

    def encode(batch: np.ndarray) -> torch.Tensor:
        sizes.append(len(batch))
        if len(batch) > 4:
            raise torch.cuda.OutOfMemoryError
        return torch.from_numpy(batch[:, 0, 0, :1].astype(np.float32))

    images = np.arange(10, dtype=np.uint8)[:, None, None, None].repeat(3, axis=1)
    np.testing.assert_array_equal(in_batches(encode, images, torch.device("cpu"), "float32")[:, 0], range(10))
    assert sizes == [10, 8, 4, 4, 2]
    with pytest.raises(torch.cuda.OutOfMemoryError):
        in_batches(lambda _: encode(np.zeros(5)), images, torch.device("cpu"), "float32")


def test_the_table_of_encoders_says_what_is_known_with_and_without_the_packages(made, monkeypatch):
    table = h2e.tl.list_encoders()
    assert list(table.index) == ["shell", "lazyslide:gpfm", "lazyslide:uni2"]
    assert table.loc["lazyslide:uni2"].tolist() == ["12", "MIT, CC-BY-4.0", True, 256, 0.5, False, True]
    assert table["trust"].tolist() == [False, True, False]
    monkeypatch.setattr("h2e._learners.known_encoders.find_spec", lambda _: None)
    table = h2e.tl.list_encoders()
    assert table["installed"].tolist() == [True] + [False] * (len(table) - 1)
    assert table.loc["lazyslide:virchow2", ["px", "um_per_px"]].tolist() == [224, 0.5]
