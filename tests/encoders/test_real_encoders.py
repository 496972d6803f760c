"""Real models of timm and of LazySlide's registry with random weights: ``make test-encoders``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from spatialdata import SpatialData

timm = pytest.importorskip("timm", reason="make test-encoders installs timm and lazyslide-models")
pytest.importorskip("lazyslide_models", reason="make test-encoders installs timm and lazyslide-models")

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

import h2e  # noqa: E402
from h2e._learners.known_encoders import known, registry  # noqa: E402

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 3, 224, 224), np.uint8)


@pytest.fixture(autouse=True)
def random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let timm make models of random weights, and those of repositories from a model that it knows."""
    create = timm.create_model

    def create_model(name: str, *, pretrained: bool = False, **arguments: object) -> torch.nn.Module:
        torch.manual_seed(0)
        name = "vit_small_patch16_224" if name.startswith("hf-hub:") else name
        return create(name, pretrained="pretrained_cfg_overlay" in arguments, **arguments)

    monkeypatch.setattr("timm.create_model", create_model)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def check_all_steps(sdata: SpatialData, learner: h2e.tl.Embedding, group_key: str, folder: Path) -> None:
    """Train, score, save, load and predict; the loaded ensemble needs consent, and predicts the same."""
    options = {"learners": learner, "group_key": group_key, "n_targets": 3, "n_programmes": 0, "progress": False}
    scores = h2e.tl.evaluate(sdata, metrics=("pearson",), baselines=(), **options)
    assert scores["value"].notna().all()
    ensemble = h2e.tl.fit(sdata, **options)
    ensemble.save(folder / "ensemble")
    new = sdata.subset([*sdata.images, *sdata.shapes, *sdata.tables])
    with pytest.raises(ValueError, match="or allow_download=True"):
        h2e.tl.predict(new, h2e.Ensemble.load(folder / "ensemble"), in_sample=True, progress=False)
    loaded = h2e.Ensemble.load(folder / "ensemble", allow_download=True)
    for each, key in ((ensemble, "before"), (loaded, "after")):
        h2e.tl.predict(new, each, key_added=key, in_sample=True, progress=False)
    predicted = new["table"].obsm
    assert predicted["before"].notna().all(axis=1).mean() > 0.8
    np.testing.assert_allclose(predicted["after"], predicted["before"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "px", "extents"),
    [
        ("lazyslide:lunit-dino-s16", 224, {"tile": 0, "surroundings": 0}),
        ("timm:vit_small_patch14_dinov2", 518, {"tile": 0, "surroundings": 0}),
        ("timm:vit_small_patch16_224", 224, {"surroundings": 0}),
        ("timm:convnext_tiny", 224, {}),
    ],
)
def test_an_encoder_goes_all_the_way_on_the_synthetic_cohort(name: str, px: int, extents: dict, tmp_path: Path):
    cohort = h2e.datasets.toy_cohort(n_slides=3, n_donors=3, side=5)
    learner = h2e.tl.Embedding(name, cache=tmp_path / "features", **extents)
    assert {view.px for view in learner.views} == {px}
    check_all_steps(cohort, learner, "donor", tmp_path)


@pytest.mark.real_data
def test_a_transformer_goes_all_the_way_on_two_real_sections(tmp_path: Path):
    sdata = h2e.datasets.her2st(sections=["C2", "C3"], progress=False)
    learner = h2e.tl.Embedding("timm:vit_small_patch16_224", tile=0, surroundings=0, cache=tmp_path / "features")
    check_all_steps(sdata, learner, "region", tmp_path)


def test_an_encoder_is_given_what_its_own_configuration_says():
    encoder = h2e.tl.Encoder("timm:vit_small_patch16_224", model_args={"act_layer": "SiLU", "init_values": 1e-5})
    module = timm.create_model("vit_small_patch16_224", num_classes=0, act_layer=torch.nn.SiLU, init_values=1e-5).eval()
    config = timm.data.resolve_model_data_config(module)
    assert encoder.px == config["input_size"][1]
    mean, std = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
    with torch.inference_mode():
        x = (torch.from_numpy(IMAGES).float() / 255 - mean) / std
        tokens = module.forward_features(x)
        expected = {
            None: module(x),
            "cls": tokens[:, 0],
            "cls+mean": torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1),
        }
    for pool, features in expected.items():
        own = h2e.tl.Encoder(encoder.name, pool=pool, model_args=encoder.model_args).build()(IMAGES)
        np.testing.assert_allclose(own, features, rtol=1e-4, atol=1e-4)


def test_an_encoder_of_lazyslide_gives_what_lazyslide_gives():
    model = registry()["lunit-dino-s16"]()
    expected = torch.stack([model.get_transform()(image.transpose(1, 2, 0)) for image in IMAGES])
    features = h2e.tl.Encoder("lazyslide:lunit-dino-s16").build()(IMAGES)
    np.testing.assert_allclose(features, model.encode_image(expected), rtol=1e-4, atol=1e-4)


def test_an_encoder_of_lazyslide_that_has_no_transform_prepares_images_itself(monkeypatch: pytest.MonkeyPatch):
    import transformers

    torch.manual_seed(0)
    config = transformers.ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    vit = transformers.ViTModel(config, add_pooling_layer=False).eval()
    monkeypatch.setattr("transformers.ViTModel.from_pretrained", lambda *_, **__: vit)
    processor = transformers.ViTImageProcessor()
    monkeypatch.setattr("transformers.AutoImageProcessor.from_pretrained", lambda *_, **__: processor)
    features = h2e.tl.Encoder("lazyslide:phikon").build()(IMAGES)
    with torch.inference_mode():
        inputs = processor(images=[image.transpose(1, 2, 0) for image in IMAGES], return_tensors="pt")
        expected = vit(**inputs).last_hidden_state[:, 0]
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("suffix", "save"), [(".safetensors", save_file), (".pth", torch.save)], ids=["safetensors", "checkpoint"]
)
def test_weights_of_a_local_file_are_read(suffix: str, save: Callable, tmp_path: Path):
    torch.manual_seed(1)
    module = timm.create_model("resnet18", num_classes=0)
    with torch.no_grad():
        module.conv1.weight.mul_(2)
    save(module.state_dict(), tmp_path / f"weights{suffix}")
    encoder = h2e.tl.Encoder("timm:resnet18", weights=tmp_path / f"weights{suffix}")
    assert encoder.digest() == h2e._learners.encoders._digest(module) != h2e.tl.Encoder("timm:resnet18").digest()


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path):
    torch.save({"state_dict": {}, "code": tmp_path}, tmp_path / "weights.pth")
    encoder = h2e.tl.Encoder("timm:resnet18", weights=tmp_path / "weights.pth")
    with pytest.raises(RuntimeError, match="encoder 'timm:resnet18' could not be loaded"):
        encoder.build()


def test_what_cannot_be_fetched_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        RuntimeError, match=r"could not be loaded .* accept its terms .* set HF_HOME .*file\.$"
    ) as error:
        h2e.tl.Encoder("timm:hf-hub:nobody/nothing", px=224).build()
    assert "\n" not in str(error.value)
    with pytest.raises(RuntimeError, match="'lazyslide:uni2' could not be loaded"):
        h2e.tl.Encoder("lazyslide:uni2").build()


def test_known_encoders_are_in_the_registry_and_those_without_consent_run_no_code():
    encoders = registry()
    assert set(known().index) <= set(encoders)
    for name in known().index[known()["plain"] == 1]:
        code = "".join(inspect.getsource(kind) for kind in encoders[name].__mro__ if "lazyslide" in kind.__module__)
        assert not [word for word in ("trust_remote_code", "torch.hub", "export.load", "jit.load") if word in code], (
            name
        )
    with pytest.raises(ValueError, match=r"runs code of its repository .* trust_remote_code=True"):
        h2e.tl.Encoder("lazyslide:gpfm").build()
    with pytest.raises(ValueError, match="must be one of LazySlide's image encoders"):
        h2e.tl.Encoder("lazyslide:prism", um_per_px=0.5, trust_remote_code=True).build()
