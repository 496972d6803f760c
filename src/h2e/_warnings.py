"""What users are told: refusals, warnings that name their own line, and how long a call will take."""

from __future__ import annotations

import logging
import sys
import warnings
from functools import partial
from typing import NoReturn

log = logging.getLogger("h2e.work")
"""What modules say of their work; what a call will do is said by ``"h2e"`` itself, whose child this is."""


def refuse(message: str, kind: type[Exception] = ValueError) -> NoReturn:
    """Raise an error with this message."""
    raise kind(message)


def refuse_if(wrong: object, message: str, kind: type[Exception] = ValueError) -> None:
    """Raise an error with this message if something is wrong: for settings, whose message takes no time to write."""
    if wrong:
        raise kind(message)


def warn(message: str) -> None:
    """Warn at the nearest line of the call stack that is not h2e's own."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "h2e":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def announce(what: str, seconds: float, *, progress: bool) -> None:
    """Say what a call will do and about how long it takes: above its progress bars, or else in one line of the log."""
    from tqdm import tqdm

    say = partial(tqdm.write, file=sys.stderr) if progress else logging.getLogger("h2e").info
    say(f"{what}: {duration(seconds)}")


def duration(seconds: float) -> str:
    """An estimate in words, no finer than it can be.

    Examples
    --------
    >>> [duration(seconds) for seconds in (20, 130, 9000)]
    ['about a minute or less', 'about 2 minutes', 'about 2 hours']
    """
    minutes = round(seconds / 60)
    if minutes < 2:
        return "about a minute or less"
    return f"about {minutes} minutes" if minutes < 120 else f"about {minutes // 60} hours"
