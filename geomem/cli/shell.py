"""``geomem config`` and ``geomem completion``: the command line as a file, and in a shell."""

from __future__ import annotations

import click

from geomem.cli.config import config_text
from geomem.errors import InputError


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND [OPTIONS]...")
@click.pass_context
def config(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Print a command and its options as a configuration file, and run nothing.

    The file is TOML, a table for each command. What was given stands in it, the defaults as comments below.

    Examples:

    \b
      geomem config train digits --gap auto --out runs/digits > digits.toml
      geomem train --config digits.toml --seed 1 --out runs/digits-1
    """
    group = ctx.find_root().command
    assert isinstance(group, click.Group)
    name, command, arguments = group.resolve_command(ctx, list(words))
    assert name is not None
    assert command is not None
    if isinstance(command, click.Group):
        raise InputError(f"{name} has commands of its own and takes no configuration file")
    with command.make_context(name, list(arguments), parent=ctx.parent) as read:
        click.echo(config_text(name, command, arguments, read))


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the lines that complete geomem's commands, options and values in a shell.

    \b
      bash: eval "$(geomem completion bash)" in ~/.bashrc
      zsh:  eval "$(geomem completion zsh)" in ~/.zshrc
      fish: geomem completion fish > ~/.config/fish/completions/geomem.fish
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(ctx.find_root().command, {}, "geomem", "_GEOMEM_COMPLETE").source())
