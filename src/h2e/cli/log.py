"""What is said on stderr: the log of h2e and warnings, as text or as one JSON object a line."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any

log = logging.getLogger("h2e.cli")


class Lines(logging.StreamHandler):
    """Lines on stderr while a command runs, with the sample that it works on."""

    def __init__(self, *, debug: bool) -> None:
        super().__init__()
        self.json, self.debug = False, debug
        self.sample: str | None = None
        self.failed: dict[str, str] = {}
        self.opened = ExitStack()

    def __enter__(self) -> Lines:
        """Listen to the log of h2e and to warnings."""
        root = logging.getLogger("h2e")
        for logger in (root, log):
            self.opened.callback(logger.setLevel, logger.level)
        log.setLevel(logging.INFO)
        root.addHandler(self)
        self.opened.callback(root.removeHandler, self)
        self.opened.enter_context(warnings.catch_warnings())
        # Those of h2e name the line that called it, which is one of click; they are told of every slide.
        warnings.filterwarnings("always", category=UserWarning, module="click")
        warnings.showwarning = lambda message, *_, **__: log.warning(str(message))
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the log and warnings as they were."""
        self.opened.close()

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        message, level = record.getMessage(), record.levelname.lower()
        if self.json:
            time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
            return json.dumps({"time": time, "level": level, "message": message, "sample": self.sample})
        parts = [level if record.levelno > logging.INFO else None, self.sample, message]
        return ": ".join(part for part in parts if part)

    def use_json(self, use: bool) -> None:  # noqa: FBT001
        """Say all that is logged, each line as a JSON object, where a program is to read it."""
        self.json = use
        logging.getLogger("h2e").setLevel(logging.INFO if use else logging.WARNING)

    def finish(self, done: str) -> None:
        """Say what was done, and what failed, which makes the exit code 1."""
        log.info(done)
        if self.failed:
            log.error("%d failed: %s", len(self.failed), ", ".join(self.failed))
            raise SystemExit(1)

    @contextmanager
    def of(self, sample: str) -> Iterator[None]:
        """Name the sample on the lines of a block; an error in it is told and kept in ``failed``."""
        self.sample = sample
        try:
            yield
        except Exception as error:  # noqa: BLE001 (whatever is wrong with it, others go on)
            self.failed[sample] = message_of(error)
            log.error(self.failed[sample])
            if self.debug:
                raise
        finally:
            self.sample = None


def message_of(error: Exception) -> str:
    """What an error says, with its type where that is not one of those that h2e writes for people."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{text}; install it: pip install {error.name.partition('.')[0].replace('_', '-')}"
    known: Any = (KeyError, ValueError, TypeError, OSError, ImportError)
    return text if text and isinstance(error, known) else f"{type(error).__name__}: {text}"
