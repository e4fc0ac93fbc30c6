"""A command with subcommands: what is asked for without one is the list."""

from typing import Any

import typer
from typer.core import TyperGroup


class _Listing(TyperGroup):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """``endpoints --json`` is ``endpoints list --json``."""
        if not args or (args[0].startswith("-") and args[0] != "--help"):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def listing() -> typer.Typer:
    """A group of commands, one of which is called ``list``."""
    return typer.Typer(
        cls=_Listing, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=False
    )
