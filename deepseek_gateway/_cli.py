"""The command line: options in, exit status out. What a command does is decided in the modules it calls."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from ._config import GatewayConfig

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def deepseek_gateway() -> None:
    """DeepSeek through Cloudflare AI Gateway, with a stock OpenAI client."""


@app.command()
def demo(
    *,
    live: Annotated[
        bool, typer.Option("--live", help="Use your own settings (environment and .env) in place of the emulator.")
    ] = False,
) -> None:
    """Walk through every route, with answers from a local emulator; no account is needed.

    Shows for each step what was sent and what came back. The exit status is 0 if every step answered as it should.
    """
    console = Console(highlight=False, soft_wrap=True)
    if live:
        from . import ConfigError  # noqa: PLC0415  # importing openai is put off until it must be

        try:
            config = GatewayConfig.from_env()
        except ConfigError as error:
            Console(stderr=True, highlight=False, soft_wrap=True).print(str(error), markup=False)
            raise typer.Exit(1) from None
        from ._demo import run_live  # noqa: PLC0415  # likewise

        raise typer.Exit(run_live(config, console))
    from ._demo import run_on_emulator  # noqa: PLC0415  # likewise

    raise typer.Exit(run_on_emulator(console))
