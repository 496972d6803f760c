"""The command line: a file a command, each a thin shell over the public functions."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

from h2e._warnings import refuse_if

COMMANDS = {
    "fit": "Train an ensemble on slides with measurements.",
    "evaluate": "Score the whole procedure on donors that it never saw.",
    "predict": "Predict slides with an ensemble, one result a slide.",
    "report": "Make one HTML page of what the other commands wrote.",
    "doctor": "Print versions, devices and data, and run a self-test.",
}
"""Each is in the module of its name, which is imported when it is called."""

EXPECTED = (KeyError, ValueError, TypeError, OSError, ImportError)
"""Errors of files and options, which are told in one line; others are bugs."""

log = logging.getLogger("h2e")


class Lines(logging.StreamHandler):
    """The log of h2e and warnings on stderr, as text or as one JSON object a line, with the sample that is worked on."""

    json, sample = False, ""

    def __init__(self, *, debug: bool) -> None:
        super().__init__()
        self.expected, self.failed = () if debug else (Exception,), dict[str, str]()

    def filter(self, record: logging.LogRecord) -> bool:
        """Leave out of a text what modules log of their work."""
        return self.json or record.name == log.name or record.levelno > logging.INFO

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        level, about = record.levelname.lower(), {"message": record.getMessage(), "sample": self.sample or None}
        if self.json:
            time = logging.Formatter().formatTime(record, "%Y-%m-%dT%H:%M:%S%z")
            return json.dumps({"time": time, "level": level, **about})
        return ": ".join(part for part in (level.replace("info", ""), self.sample, record.getMessage()) if part)

    @contextmanager
    def of(self, sample: str) -> Iterator[None]:
        """Name the sample on the lines of a block; an error in it is told and kept, and does not stop the others."""
        self.sample = sample
        try:
            yield
        except self.expected as error:
            self.failed[sample] = message_of(error)
            log.error(self.failed[sample])
        self.sample = ""

    def finish(self, done: str) -> None:
        """Say what was done, and what failed, which makes the exit code 1."""
        log.info(done)
        refuse_if(self.failed, f"{len(self.failed)} failed: {', '.join(self.failed)}")


class Commands(click.Group):
    """Commands that are imported when they are called, and whose expected errors are one line without traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, in the order of work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        return getattr(import_module(f"h2e.cli.{cmd_name}"), cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command, with its log on stderr."""
        ctx.obj, level = Lines(debug=ctx.params["debug"]), log.level
        expected = () if ctx.params["debug"] else EXPECTED
        log.addHandler(ctx.obj)
        log.setLevel(logging.INFO)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "zarr v3 autosharding")
                # Those of h2e name the line that called it, one of click, and are told of every slide.
                warnings.filterwarnings("always", category=UserWarning, module="click")
                warnings.showwarning = lambda message, *_, **__: log.warning(str(message))
                return super().invoke(ctx)
        except expected as error:
            log.error(message_of(error))
            return ctx.exit(1)
        finally:
            log.removeHandler(ctx.obj)
            log.setLevel(level)


def message_of(error: Exception) -> str:
    """What an error says, with its type where it is none that is written for people."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        text += f"; pip install {error.name.replace('_', '-')}"
    written = isinstance(error, EXPECTED) and type(error).__module__ == "builtins"
    return text if written else f"{type(error).__name__}: {text}"


@click.group(cls=Commands)
@click.version_option(package_name="h2e")
@click.option("--debug", is_flag=True, help="Stop at the first error, with its traceback.")
def main(**_: object) -> None:
    """Predict gene expression from H&E slides with models of your own slides.

    A command says the Python that does the same, and leaves a record of it in the folder --out.
    """
