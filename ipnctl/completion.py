"""``ipnctl completion``: the script by which a shell completes our commands, options and paths."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

from .output import emit

SHELLS: Final = ("bash", "zsh", "fish")
VARIABLE: Final = "_IPNCTL_COMPLETE"
"""The variable by which the script asks the program for completions (click: shell completion)."""


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes in SHELL.

    \b
    bash:  eval "$(ipnctl completion bash)"                    in ~/.bashrc
    zsh:   eval "$(ipnctl completion zsh)"                     in ~/.zshrc
    fish:  ipnctl completion fish > ~/.config/fish/completions/ipnctl.fish
    """
    script = get_completion_class(shell)
    assert script is not None
    emit(script(ctx.find_root().command, {}, "ipnctl", VARIABLE).source())
