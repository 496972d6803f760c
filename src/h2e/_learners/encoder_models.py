"""Networks as functions from tiles to features: torch modules, models of timm, and those of LazySlide's registry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from h2e._learners.known_encoders import registry
from h2e._learners.shell import Encode, Precision, in_batches
from h2e._warnings import refuse, refuse_if

if TYPE_CHECKING:
    import torch

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
"""Of its channels, in 0–1: how images are scaled for a network that does not say otherwise."""

LAYERS = {"SwiGLUPacked": "timm.layers", "SiLU": "torch.nn", "GELU": "torch.nn"}
"""Classes that ``model_args`` may name, and where they are."""


@contextmanager
def told(name: str) -> Iterator[None]:
    """Say in one sentence that an encoder could not be had, and what to do."""
    try:
        yield
    except ImportError as error:
        msg = f"encoder {name!r} needs packages that are not installed ({error}): pip install 'h2e[encoders]'."
        raise ImportError(msg) from error
    # Gated, missing, offline, other weights: each library has errors of its own.
    except Exception as error:
        why = str(error).strip().partition("\n")[0].partition(". ")[0]
        msg = f"encoder {name!r} could not be loaded ({type(error).__name__}: {why}); if it is gated, accept its terms "
        msg += "on huggingface.co and run 'hf auth login'; without a network, set HF_HOME or pass weights= a file."
        raise RuntimeError(msg) from error


def timm_px(name: str, model_args: dict[str, Any]) -> int:
    """Side of the images of a model of timm, which the arguments or its configuration say."""
    with told(f"timm:{name}"):
        from timm.models import get_pretrained_cfg, load_model_config_from_hf

        hub = name.partition(":")[2]
        config = load_model_config_from_hf(hub)[0] if hub else get_pretrained_cfg(name).to_dict()
        return int(np.max(model_args.get("img_size") or config["input_size"][1:]))


def timm_model(name: str, model_args: dict[str, Any], weights: Any) -> torch.nn.Module:
    """A model of timm without its classifier, with its own weights or those of a file."""
    with told(f"timm:{name}"):
        import timm

        named = {key: value for key, value in model_args.items() if key.endswith("_layer") and value in LAYERS}
        args = model_args | {key: getattr(import_module(LAYERS[value]), value) for key, value in named.items()}
        if weights is not None:
            args["pretrained_cfg_overlay"] = {"state_dict": _read_weights(Path(weights)), "source": ""}
        module = timm.create_model(name, pretrained=True, **{"num_classes": 0} | args)
        (getattr(module, "pretrained_cfg", None) or {}).pop("state_dict", None)
        return module


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a file by name: safetensors, or a checkpoint of torch of which nothing but tensors is unpickled."""
    import torch
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        return load_file(path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    return next((state[key] for key in ("state_dict", "model", "teacher") if key in state), state)


def lazyslide_model(name: str) -> Any:
    """A model of LazySlide's registry."""
    with told(f"lazyslide:{name}"):
        known = registry()
    names = list(known)
    refuse_if(name not in names, f"encoder must be one of LazySlide's image encoders {names}, got 'lazyslide:{name}'.")
    with told(f"lazyslide:{name}"):
        return known[name]()


def as_function(module: Any, precision: Precision = "float32", pool: str | None = None) -> Encode:
    """A torch module as a function, where its weights are, in evaluation mode; maps are averaged. Other code stays.

    Images are scaled as the module says it was trained (timm's ``pretrained_cfg``), else as for ImageNet, and resized by
    its own interpolation if it takes one size only.
    """
    if not hasattr(module, "state_dict"):
        return module
    import torch

    config = IMAGENET | (getattr(module, "pretrained_cfg", None) or {})
    device = next(iter(module.state_dict().values()), torch.empty(0)).device
    mean, std = (torch.tensor(config[key], device=device)[:, None, None] for key in ("mean", "std"))

    def encode_batch(batch: np.ndarray) -> torch.Tensor:
        x = torch.from_numpy(np.ascontiguousarray(batch)).to(device)
        x = _resized(x.float() / 255, module, config)
        return _features(module.eval(), (x - mean) / std, pool)

    return lambda images: in_batches(encode_batch, images, device, precision)


def _resized(x: torch.Tensor, module: Any, config: dict[str, Any]) -> torch.Tensor:
    """Images in 0–1 in the size that a transformer of timm is limited to, by the interpolation of its configuration."""
    import torch

    patches = getattr(module, "patch_embed", None)
    size = getattr(patches, "img_size", None)
    if size is None or not getattr(patches, "strict_img_size", True) or tuple(size) == x.shape[2:]:
        return x
    how = "bilinear" if config.get("interpolation") == "bilinear" else "bicubic"
    return torch.nn.functional.interpolate(x, tuple(size), mode=how, antialias=True).clamp(0, 1)


def _features(module: Any, x: torch.Tensor, pool: str | None) -> torch.Tensor:
    """What a module gives of images, (n, d): maps averaged, tokens pooled as it is asked for."""
    if pool is not None:
        n = getattr(module, "num_prefix_tokens", None)
        if n is None or (n == 0 and "cls" in pool):
            refuse(f"pool must be None for an encoder without {'such' if n is None else 'class'} tokens, got {pool!r}.")
        tokens = module.forward_features(x)
        return pooled(tokens[:, 0], tokens[:, n:], pool)
    features = module(x)
    if features.ndim == 3:
        refuse("the encoder gives tokens and not features; say how to pool them: pool='cls', 'mean' or 'cls+mean'.")
    return features.flatten(2).float().mean(2) if features.ndim > 2 else features


def pooled(cls: torch.Tensor, patches: torch.Tensor, pool: str) -> torch.Tensor:
    """The class token, the mean of the others, or both side by side."""
    import torch

    parts = {"cls": cls.float(), "mean": patches.float().mean(1)}
    return torch.cat([parts[part] for part in pool.split("+")], dim=1)


def lazyslide_function(model: Any, precision: Precision, pool: str | None) -> Encode:
    """A model of LazySlide's protocol as a function; its transform, if it has one, is given batches of ``uint8``."""
    transform = model.get_transform() or (lambda images: images)
    device = next(iter(model.model.state_dict().values())).device

    def encode_batch(batch: np.ndarray) -> torch.Tensor:
        import torch

        x = transform(torch.from_numpy(np.ascontiguousarray(batch)).to(device))
        if pool is None:
            return torch.as_tensor(model.encode_image(x)).float()
        tokens = model.encode_image_dense(x)
        return pooled(tokens.cls_token, tokens.patch_tokens, pool)

    return lambda images: in_batches(encode_batch, images, device, precision)
