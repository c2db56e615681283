"""The command line: options in, exit status out. The modules that it calls decide what a command does.

Modules that need Rich, the emulator or openai are imported by the commands, so help and usage errors come at once.
"""
# No `from __future__ import annotations` here: Typer reads the annotations as objects.

import platform
from contextlib import ExitStack
from typing import Annotated, Any

import typer

from deepseek_gateway._config import look_up
from deepseek_gateway._headers import gateway_headers
from deepseek_gateway._settings import DEFAULT_MODEL

from .ask import arguments, print_answer, read_prompt
from .options import Commands, DebugOption, EndpointOption, EnvFileOption, ModelOption, RouteOption, load_settings, say
from .run import run
from .serve import serve

app: typer.Typer = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_STATUS = "Exit status: 0 success; 1 {}; 2 wrong usage or a missing extra; 130 interrupted."
_REFUSED = _STATUS.format("the settings are wrong, or the service refused the request")
_NOT_SERVED = _STATUS.format("it cannot serve")
_EMULATOR_HINT = "\nTo try it without an account: deepseek-gateway ask --emulator 'What is Cloudflare?'"


def _show_version(wanted: bool) -> None:  # noqa: FBT001  # Typer calls it so
    if wanted:
        from .computer import installed  # noqa: PLC0415  # only --version and doctor need it

        versions = installed()
        ours = versions.get("deepseek-gateway", "(not installed)")
        typer.echo(f"deepseek-gateway {ours}, openai {versions['openai']}, Python {platform.python_version()}")
        raise typer.Exit


@app.callback(epilog=_REFUSED)
def deepseek_gateway(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the versions in use.")
    ] = False,
) -> None:
    """DeepSeek through Cloudflare AI Gateway, with a stock OpenAI client.

    Settings come from options, then the environment, then the nearest .env file.
    """


@app.command(epilog=_REFUSED)
def ask(  # noqa: PLR0913  # one parameter for each option
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="The question; without it or with -, stdin is read.")
    ] = None,
    *,
    model: ModelOption = None,
    system: Annotated[
        str | None, typer.Option("--system", help="System prompt. Default: none.", metavar="TEXT")
    ] = None,
    no_thinking: Annotated[bool, typer.Option("--no-thinking", help="Make DeepSeek answer without thinking.")] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object: answer, thinking, usage, model, cache_status, log_id ..."),
    ] = False,
    cache_key: Annotated[
        str | None,
        typer.Option("--cache-key", help="Cache the answer under NAME, for any prompt; not streamed.", metavar="NAME"),
    ] = None,
    cache_ttl: Annotated[
        int | None,
        typer.Option("--cache-ttl", help="Cache for 60 to 2592000 seconds; not streamed.", metavar="SECONDS"),
    ] = None,
    skip_cache: Annotated[bool, typer.Option("--skip-cache", help="Bypass the gateway's cache.")] = False,
    metadata: Annotated[
        list[str] | None,
        typer.Option("--metadata", help="Metadata for the gateway's log; up to five times.", metavar="KEY=VALUE"),
    ] = None,
    event_id: Annotated[
        str | None, typer.Option("--event-id", help="Your own id for the gateway's log.", metavar="ID")
    ] = None,
    emulator: Annotated[
        bool, typer.Option("--emulator", help="Use a local emulator: no account is needed, answers are made up.")
    ] = False,
    route: RouteOption = None,
    env_file: EnvFileOption = None,
    endpoint: EndpointOption = None,
    debug: DebugOption = False,
) -> None:
    """Ask DeepSeek a question and print the answer as it arrives.

    The answer goes to standard output. Thinking, dimmed, and a closing line with tokens, caches, log id and time go
    to standard error.
    """
    try:
        pairs = dict(map(_pair, metadata)) if metadata else None
        headers = gateway_headers(
            cache_ttl=cache_ttl, cache_key=cache_key, skip_cache=skip_cache or None, metadata=pairs, event_id=event_id
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
            config, _ = load_settings(route, env_file, endpoint, hint=_EMULATOR_HINT)
        text, model = read_prompt(prompt), model or config.model or DEFAULT_MODEL
        streamed = not as_json and cache_key is None and cache_ttl is None  # the gateway caches no streams
        question = arguments(
            prompt=text, model=model, system=system, thinking=not no_thinking, streamed=streamed, headers=headers
        )
        if emulator:
            say("A local emulator answers in place of Cloudflare and DeepSeek. Its answers are made up.", dim=True)
        print_answer(config, question, as_json=as_json, debug=debug)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"metadata must be KEY=VALUE, not {text!r}")
    return key, value


app.command(epilog=_NOT_SERVED)(serve)
app.command(context_settings={"allow_interspersed_args": False})(run)


@app.command(epilog=_STATUS.format("a check failed"))
def doctor(  # noqa: PLR0913  # one parameter for each option
    *,
    model: ModelOption = None,
    offline: Annotated[bool, typer.Option("--offline", help="Open no connection.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, as described above.")] = False,
    route: RouteOption = None,
    env_file: EnvFileOption = None,
    endpoint: EndpointOption = None,
    debug: DebugOption = False,
) -> None:
    """Check settings, network, gateway and key, each with its remedy.

    Failures come first. Then it shows every setting and its origin; secrets are shown only by their length. Costs at
    most one short completion, and none with --offline.

    --json prints one object. Names are only added, never changed: "settings" (name, variable, secret, value, length,
    origin), "checks" (name, group, verdict, found, remedy), "summary" and "exit_status". A verdict is pass, warn, fail
    or skip.
    """
    from . import report  # noqa: PLC0415  # only this command needs it
    from .doctor import Case, diagnose  # noqa: PLC0415  # likewise

    findings = look_up(env_file=env_file or ..., route=route, endpoint=endpoint)
    model = model or str(findings.values["model"] or DEFAULT_MODEL)
    case = Case(findings=findings, model=model, offline=offline)
    results = diagnose(case)
    if as_json:
        typer.echo(report.as_json(findings, results))
    else:
        report.print_report(findings, results)
    if debug and "probe" in vars(case):  # the completion was made
        typer.echo(case.probe.traceback, err=True, nl=False)
    raise typer.Exit(report.exit_status(results))


@app.command(epilog=_STATUS.format("a step failed"))
def demo(
    *,
    live: Annotated[
        bool, typer.Option("--live", help="Use your own settings (environment and .env) instead of the emulator.")
    ] = False,
    route: RouteOption = None,
    env_file: EnvFileOption = None,
    endpoint: EndpointOption = None,
    debug: DebugOption = False,  # noqa: ARG001  # every command takes it
) -> None:
    """Show what the library does, on a local emulator.

    No account is needed. Makes the same call on every route, and shows a stream, a cache hit, an error with its
    remedy, a retry and structured output. With --live, it makes a call and streams an answer with your own settings.
    """
    if not live and (route or env_file or endpoint):
        raise typer.BadParameter("--route, --env-file and --endpoint need --live: the emulator takes no settings")
    config = load_settings(route, env_file, endpoint)[0] if live else None
    from .demo import run_live, run_on_emulator  # noqa: PLC0415  # they import openai

    raise typer.Exit(run_live(config) if config else run_on_emulator())


@app.command("emulator", epilog=_NOT_SERVED)
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
            help="Whether the gateway has a DeepSeek key for calls without one. An open gateway does not use it.",
        ),
    ] = True,
    latency: Annotated[
        float, typer.Option("--latency", metavar="SECONDS", min=0, help="Seconds before DeepSeek begins an answer.")
    ] = 0.0,
    pace: Annotated[
        float, typer.Option("--pace", metavar="SECONDS", min=0, help="Seconds between the chunks of a stream.")
    ] = 0.0,
    fail: Annotated[
        list[str] | None,
        typer.Option(
            "--fail",
            metavar="CODE[:TIMES]",
            help="Fail the next calls with this gateway code, such as 2003, or status, such as 503. May be repeated.",
        ),
    ] = None,
    route: RouteOption = None,
    env_file: EnvFileOption = None,
    endpoint: EndpointOption = None,
    debug: DebugOption = False,
) -> None:
    """Serve a local AI Gateway with a local DeepSeek behind it.

    Prints the settings that point a program at it, for the --route, and a line for each exchange. Its page shows the
    exchanges in full. Ctrl-C ends it. No account and no settings are needed.

    Tests in any language control it with JSON, such as {"text": "Paris"} or {"tool_calls": [{"name": "get_weather",
    "arguments": {"city": "Paris"}}]} to POST /_emulator/answers, and {"code": 2003, "times": 2} to POST
    /_emulator/failures. The keywords are those of Emulator.answer_next() and Emulator.fail_next() in Python. POST
    /_emulator/reset forgets both.
    """
    if env_file or endpoint:
        raise typer.BadParameter("the emulator takes no settings, so neither --env-file nor --endpoint")
    from .emulator import run_emulator  # noqa: PLC0415  # it needs the extra

    options: dict[str, Any] = {"port": port, "authenticated": authenticated, "latency": latency, "pace": pace}
    if not stored_key:
        options["stored_keys"] = {}
    run_emulator(options, fail or [], route or "provider", debug=debug)
