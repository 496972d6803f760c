"""Calls of public functions that can be made and written down: what a command runs is what it says."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Variable(NamedTuple):
    """A value, and its name in a script."""

    name: str
    value: Any

    def __repr__(self) -> str:
        """Its name."""
        return self.name


class Call:
    """A call of a function, named in full, with arguments that may be calls themselves.

    Examples
    --------
    >>> call = Call("math.dist", [0.0, 0.0], Call("builtins.list", (3.0, 4.0)))
    >>> call, call()
    (math.dist([0.0, 0.0], builtins.list((3.0, 4.0))), 5.0)
    """

    def __init__(self, function: str, *args: Any, **options: Any) -> None:
        self.function, self.args, self.options = function, args, options

    def __repr__(self) -> str:
        """The call as Python."""
        options = [f"{key}={value!r}" for key, value in self.options.items()]
        return f"{self.function}({', '.join([*map(repr, self.args), *options])})"

    def __call__(self, **unsaid: Any) -> Any:
        """Make the call, also with options that change nothing in its result."""
        options = {key: _made(value) for key, value in self.options.items()}
        return pkgutil.resolve_name(self.function)(*map(_made, self.args), **options, **unsaid)


def _made(value: Any) -> Any:
    """The value of an argument."""
    if isinstance(value, Variable):
        return value.value
    if isinstance(value, Mapping):
        return {key: _made(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_made(one) for one in value]
    return value() if isinstance(value, Call) else value


def script(lines: Iterable[str]) -> str:
    """Lines of Python below the imports that they need."""
    text = "\n".join(lines)
    modules = sorted(set(re.findall(r"\b(anndata|h2e|spatialdata|spatialdata_io)\.", text)))
    return "\n".join([*(f"import {name}" for name in modules), "", text])
