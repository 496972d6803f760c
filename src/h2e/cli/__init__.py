"""The command line: a file a command, each a thin shell over the public functions."""

from __future__ import annotations

import shlex
from importlib import import_module
from typing import Any

import click

from h2e.cli.log import Lines, log, message_of

COMMANDS = {
    "fit": "Train an ensemble on slides with measurements.",
    "evaluate": "Score the whole procedure on donors that it never saw.",
    "predict": "Predict slides with an ensemble, one result a slide.",
    "report": "Make one HTML page of what the other commands wrote.",
    "doctor": "Print versions, devices and data, and run a self-test.",
}
"""Each is in the module of its name, which is imported when it is called."""


class Commands(click.Group):
    """Commands that are imported when they are called, and whose expected errors are a line without traceback."""

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

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the command as it was typed."""
        ctx.meta["command"] = shlex.join(["h2e", *args])
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what can go wrong with files and options is told in one line, anything else is a bug."""
        ctx.obj = ctx.with_resource(Lines(debug=ctx.params["debug"]))
        try:
            return super().invoke(ctx)
        except (KeyError, ValueError, TypeError, OSError, ImportError) as error:
            if ctx.params["debug"]:
                raise
            log.error(message_of(error))
            return ctx.exit(1)


@click.group(cls=Commands)
@click.version_option(package_name="h2e")
@click.option("--debug", is_flag=True, help="Show where an error arose.")
def main(**_: object) -> None:
    """Predict gene expression from H&E slides with models of your own slides.

    A command says at its end the Python that does the same, and leaves a record of it in the folder --out.
    """
