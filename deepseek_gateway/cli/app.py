"""The command line: options in, exit status out. What a command does is decided in the modules it calls.

Those that need openai, Rich or the emulator are imported by the commands, so that help and complaints come at once.
"""
# No `from __future__ import annotations` here: Typer reads the annotations as objects.

import platform
import sys
from contextlib import ExitStack
from typing import Annotated

import typer

from deepseek_gateway._headers import gateway_headers

from .environment import Format, Target
from .options import DebugOption, EndpointOption, EnvFileOption, RouteOption, reporting, say, settings

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)

_EMULATOR_HINT = "\nTo try it without an account: deepseek-gateway ask --emulator 'What is Cloudflare?'"


def _show_version(wanted: bool) -> None:  # noqa: FBT001  # Typer calls it so
    if wanted:
        from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415  # nothing else needs it

        try:
            ours = version("deepseek-gateway")
        except PackageNotFoundError:
            ours = "(not installed)"
        typer.echo(f"deepseek-gateway {ours}, openai {version('openai')}, Python {platform.python_version()}")
        raise typer.Exit


@app.callback()
def deepseek_gateway(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the versions of this, openai and Python."
        ),
    ] = False,
) -> None:
    """DeepSeek through Cloudflare AI Gateway, with a stock OpenAI client.

    Settings come from options, then the environment, then the nearest .env file.

    Exit status: 0 all is well; 1 the service or the settings said no; 2 wrong usage; 130 interrupted.
    """


@app.command()
def ask(  # noqa: PLR0913  # one parameter for each option
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT", help="What to ask; with - or without it, standard input is read.", show_default=False
        ),
    ] = None,
    *,
    model: Annotated[
        str, typer.Option("--model", help="Model, or dynamic/ROUTE with --route compat.", metavar="NAME")
    ] = "deepseek-flash",
    system: Annotated[
        str | None, typer.Option("--system", help="System prompt. Default: none.", metavar="TEXT")
    ] = None,
    no_thinking: Annotated[
        bool, typer.Option("--no-thinking", help="Have DeepSeek answer at once, without thinking.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object: answer, thinking, usage, cache, log id, time ...")
    ] = False,
    cache_key: Annotated[
        str | None,
        typer.Option(
            "--cache-key",
            help="Cache the answer at the gateway under this name, whatever the prompt. Comes in one piece.",
            metavar="NAME",
        ),
    ] = None,
    cache_ttl: Annotated[
        int | None,
        typer.Option(
            "--cache-ttl",
            help="Keep a cached answer so many seconds, 60 to 2592000. Comes in one piece. Default: the gateway's.",
            metavar="SECONDS",
        ),
    ] = None,
    skip_cache: Annotated[bool, typer.Option("--skip-cache", help="Go past the gateway's cache.")] = False,
    metadata: Annotated[
        list[str] | None,
        typer.Option("--metadata", help="Put this into the gateway's log; up to five times.", metavar="KEY=VALUE"),
    ] = None,
    event_id: Annotated[
        str | None,
        typer.Option("--event-id", help="Id of your own for the gateway's log. Default: the gateway's.", metavar="ID"),
    ] = None,
    emulator: Annotated[
        bool, typer.Option("--emulator", help="Let a local emulator answer: no account, made-up answers.")
    ] = False,
    route: RouteOption = None,
    env_file: EnvFileOption = None,
    endpoint: EndpointOption = None,
    debug: DebugOption = False,
) -> None:
    """Ask DeepSeek a question and show the answer as it comes.

    On a terminal the answer is rendered as Markdown, elsewhere it is the raw text. Thinking, dimmed, and the closing
    line with tokens, caches, log id and time go to standard error.
    """
    try:
        headers = gateway_headers(
            cache_ttl=cache_ttl,
            cache_key=cache_key,
            skip_cache=skip_cache or None,
            metadata=dict(map(_pair, metadata)) if metadata else None,
            event_id=event_id,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if emulator and (endpoint or env_file):
        raise typer.BadParameter("--emulator needs no settings, so it goes with neither --endpoint nor --env-file")
    with ExitStack() as stack:
        if emulator:
            from deepseek_gateway.emulator import Emulator  # noqa: PLC0415  # it needs the extra

            config = stack.enter_context(Emulator()).config(route=route or "provider")
        else:
            config, _ = settings(route, env_file, endpoint, hint=_EMULATOR_HINT)
        stack.enter_context(reporting(config, model=model, debug=debug))
        text = _prompt(prompt)
        if emulator:
            say("A local emulator answers in place of Cloudflare and DeepSeek; what it says is made up.", dim=True)
        from .ask import Question  # noqa: PLC0415  # it makes clients
        from .ask import ask as ask_question  # noqa: PLC0415  # likewise

        question = Question(
            prompt=text,
            model=model,
            system=system,
            thinking=not no_thinking,
            headers=headers,
            whole=as_json or cache_key is not None or cache_ttl is not None,
        )
        ask_question(config, question, as_json=as_json)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"metadata must be KEY=VALUE, not {text!r}")
    return key, value


def _prompt(given: str | None) -> str:
    """Take the prompt from the argument or from standard input."""
    if given is None and sys.stdin.isatty():
        raise typer.BadParameter("there is no prompt: give it as an argument, or - to type it here")
    if given is None or given == "-":
        prompt = typer.get_binary_stream("stdin").read().decode("utf-8", "replace")
    else:
        prompt = given.encode("utf-8", "replace").decode()  # an argument that was no UTF-8 comes as half characters
    if not prompt.strip():
        raise typer.BadParameter("the prompt is empty")
    return prompt


@app.command(context_settings={"allow_interspersed_args": False})
def env(  # noqa: PLR0913  # one parameter for each option
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROGRAM",
            help="Run this program, with its arguments, in place of printing. Its exit status is kept.",
            show_default=False,
        ),
    ] = None,
    *,
    target: Annotated[Target, typer.Option("--for", help="What the variables are for.")] = "openai",
    form: Annotated[Format | None, typer.Option("--format", help="How to print. Default: shell.")] = None,
    show_secrets: Annotated[
        bool, typer.Option("--show-secrets", help="Print keys and tokens in place of references to their variables.")
    ] = False,
    route: RouteOption = None,
    env_file: EnvFileOption = None,
    endpoint: EndpointOption = None,
    debug: DebugOption = False,
) -> None:
    """Lead another program through the gateway, by its variables.

    Prints them, or runs a program with them.

    \b
      eval "$(deepseek-gateway env)"                 for this shell
      deepseek-gateway env -- python my_program.py   for one program
      deepseek-gateway env --for curl                as a curl command

    Without --for they are those of the openai package, for any program that makes an OpenAI client of its own.
    Variables that would send your OpenAI identity along (OPENAI_ORG_ID and the like) are unset.
    """  # noqa: D301  # \b keeps the lines apart
    if command and (form or show_secrets or target == "curl"):
        raise typer.BadParameter("a program is run without --format, --show-secrets and --for curl")
    if target == "curl" and form not in {None, "shell"}:
        raise typer.BadParameter("--for curl gives a command for a shell, and no other --format")
    config, origins = settings(route, env_file, endpoint)
    from .env import run, show  # noqa: PLC0415  # rarely needed

    with reporting(config, debug=debug):
        if command:
            run(target, config, command)
        show(target, config, origins, form=form or "shell", show_secrets=show_secrets)


@app.command()
def doctor(  # noqa: PLR0913  # one parameter for each option
    *,
    model: Annotated[str, typer.Option("--model", help="Model to ask.", metavar="NAME")] = "deepseek-flash",
    offline: Annotated[bool, typer.Option("--offline", help="Connect to nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")] = False,
    max_retries: Annotated[
        int, typer.Option("--max-retries", min=0, help="Retries of your client, for the worst-case number of calls.")
    ] = 2,
    max_attempts: Annotated[
        int, typer.Option("--max-attempts", min=1, max=5, help="Attempts that you ask the gateway for, likewise.")
    ] = 1,
    route: RouteOption = None,
    env_file: EnvFileOption = None,
    endpoint: EndpointOption = None,
    debug: DebugOption = False,
) -> None:
    """Check settings, network, gateway and key, each with its remedy.

    Says first what is configured and where each value came from; of secrets no more than the length is shown. Costs at
    most one short completion, and none with --offline. The exit status is 1 if a check failed.
    """
    from rich.console import Console  # noqa: PLC0415  # a wrong option does not need it

    from . import doctor as checks  # noqa: PLC0415  # only this command needs them
    from . import report  # noqa: PLC0415  # likewise

    case = checks.Case.of(
        env_file or ...,
        settings={"route": route, "endpoint": endpoint},
        model=model,
        offline=offline,
        max_retries=max_retries,
        max_attempts=max_attempts,
    )
    with reporting(debug=debug):
        results = checks.diagnose(case)
        if as_json:
            typer.echo(report.as_json(case.findings, results))
        else:
            report.show(case.findings, results, Console(highlight=False))
        if debug:
            typer.echo(case.traceback, err=True, nl=False)
    raise typer.Exit(report.exit_status(results))


@app.command()
def demo(
    *,
    live: Annotated[
        bool, typer.Option("--live", help="Use your own settings (environment and .env) in place of the emulator.")
    ] = False,
    route: RouteOption = None,
    env_file: EnvFileOption = None,
    endpoint: EndpointOption = None,
    debug: DebugOption = False,
) -> None:
    """Walk through every route on a local emulator; no account needed.

    Shows for each step what was sent and what came back. The exit status is 0 if every step answered as it should.
    With --live, --route walks that route alone; the emulator takes no settings.
    """
    if not live and (route or env_file or endpoint):
        raise typer.BadParameter("--route, --env-file and --endpoint need --live: the emulator takes no settings")
    config = settings(route, env_file, endpoint)[0] if live else None
    from rich.console import Console  # noqa: PLC0415  # a complaint does not need it

    from .demo import run_live, run_on_emulator  # noqa: PLC0415  # importing openai is put off until it must be

    console = Console(highlight=False, soft_wrap=True)
    with reporting(config, debug=debug):
        status = run_live(config, console, only=route) if config else run_on_emulator(console)
    raise typer.Exit(status)


@app.command("emulator")
def serve_emulator(  # noqa: PLR0913  # one parameter for each option
    *,
    port: Annotated[
        int, typer.Option("--port", metavar="PORT", min=0, max=65535, help="Port on 127.0.0.1; 0 takes any free one.")
    ] = 8787,
    authenticated: Annotated[
        bool, typer.Option("--authenticated/--open", help="Whether the gateway asks for CF_AIG_TOKEN.")
    ] = True,
    stored_key: Annotated[
        bool,
        typer.Option(
            "--stored-key/--no-stored-key",
            help="Whether a DeepSeek key is stored at the gateway, for calls without one. An open gateway uses none.",
        ),
    ] = True,
    latency: Annotated[
        float,
        typer.Option("--latency", metavar="SECONDS", min=0, help="Seconds that DeepSeek takes until an answer begins."),
    ] = 0.0,
    fail: Annotated[
        list[str] | None,
        typer.Option(
            "--fail",
            metavar="CODE[:TIMES]",
            help="Let the next calls fail with a code of the gateway, such as 2003, or a status, such as 503. "
            "Repeat it for more; the order counts.",
        ),
    ] = None,
    route: RouteOption = None,
    env_file: EnvFileOption = None,
    endpoint: EndpointOption = None,
    debug: DebugOption = False,
) -> None:
    """Serve a local AI Gateway with a local DeepSeek behind it.

    Prints the settings that lead a program there, by --route, and a line for each exchange, which its page shows in
    full. Ctrl-C ends it. No account is needed, and no settings.
    """
    if env_file or endpoint:
        raise typer.BadParameter("the emulator takes no settings, so neither --env-file nor --endpoint")
    from .emulator import run  # noqa: PLC0415  # it needs the extra

    run(
        port=port,
        authenticated=authenticated,
        stored_key=stored_key,
        latency=latency,
        failures=fail or [],
        route=route or "provider",
        debug=debug,
    )
