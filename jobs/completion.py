"""`csrm completion`: have a shell complete commands, options and file names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["completion"]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes a SHELL complete `csrm`: commands, options, file names.

    \b
    Examples:
      eval "$(csrm completion bash)"                                       now; or for good, in ~/.bashrc
      csrm completion zsh > ~/.zfunc/_csrm                                 in a folder of fpath
      csrm completion fish > ~/.config/fish/completions/csrm.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None, shell
    click.echo(kind(context.find_root().command, {}, "csrm", "_CSRM_COMPLETE").source())
