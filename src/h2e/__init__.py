"""Predict spot-level gene expression from H&E histology, on your own slides, honestly scored."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

__all__ = ["Ensemble", "datasets", "get", "metrics", "pl", "pp", "tl"]

__version__ = version("h2e")

if TYPE_CHECKING:
    from h2e import datasets, get, metrics, pl, pp, tl
    from h2e._ensemble.ensemble import Ensemble
else:

    def __getattr__(name: str) -> Any:
        """Import what is exported when it is first used."""
        if name == "Ensemble":
            return import_module("h2e._ensemble.ensemble").Ensemble
        if name in __all__:
            return import_module(f"h2e.{name}")
        msg = f"module 'h2e' has no attribute {name!r}; it has {', '.join(__all__)}."
        raise AttributeError(msg)


def __dir__() -> list[str]:
    """Names for completion, imported or not."""
    return [*__all__, *(name for name in globals() if name.startswith("__"))]
