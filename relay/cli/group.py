"""Command groups: their help, and the default command."""

from typing import Any

import typer
from typer.core import TyperGroup


class Group(TyperGroup):
    """A group whose help shows each command's whole line, however narrow the terminal is."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, command.get_short_help_str(limit=1000)) for name, command in commands if command is not None]
            )

    def invoke(self, ctx: Any) -> Any:
        """Tell what is wrong with an option without the words of the library that converts it."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ").removeprefix("Input ")
            raise


class _Listing(Group):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """``endpoints --json`` is ``endpoints list --json``. Completing an empty word offers the commands."""
        if (not args and not ctx.resilient_parsing) or (
            args and args[0].startswith("-") and args[0] not in ctx.help_option_names
        ):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def listing() -> typer.Typer:
    """A group of commands, one of which is called ``list``."""
    return typer.Typer(
        cls=_Listing, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=False
    )
