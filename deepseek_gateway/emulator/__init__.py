"""A local Cloudflare AI Gateway with DeepSeek behind it, for demos, tests and development.

It needs no account, no network and no model, and it gives the same answers on every run::

    from deepseek_gateway import create_client
    from deepseek_gateway.emulator import Emulator

    with Emulator() as emulator, create_client(emulator.config()) as client:
        answer = client.chat.completions.create(
            model="deepseek-flash", messages=[{"role": "user", "content": "What is Cloudflare?"}]
        )
    assert emulator.requests[0].headers["cf-aig-authorization"] == f"Bearer {emulator.gateway_token}"
    assert "cf-aig-authorization" not in emulator.requests[0].upstream.headers

`Emulator.answer_next()` and `Emulator.answer_with()` say what DeepSeek answers. `Emulator.fail_next()` makes calls
fail: with errors of the gateway, of Cloudflare's edge and of DeepSeek, with streams that break off, with connections
that are reset. The arguments of `Emulator` are the settings of a gateway, such as `guardrails` and `rate_limit`.

`Emulator.url` is an ordinary loopback URL, for any HTTP client. The emulator answers on all three routes as the two
services are documented or were observed to answer, and at `Emulator.direct_url` as DeepSeek without the gateway. It
shares no code with the clients of this library, so that a wrong fact shows. A browser that opens the URL shows the last
exchanges as they happen, with secrets masked.

The command `deepseek-gateway emulator` serves until Ctrl-C. Tests in any language control it over HTTP: POST the
keyword arguments as a JSON object to `/_emulator/answers`, `/_emulator/failures` or `/_emulator/reset`. Needs
the extra: ``pip install 'deepseek-gateway[emulator]'``.

A failure of the emulator itself is answered with 500 and ``x-emulator-fault: 1``, and is raised at the end of `with`.

Known gaps:

- Files and images are accepted and ignored. There is no endpoint for files.
- DeepSeek's Anthropic format, and the gateway's universal endpoint and WebSockets, are missing.
- JSON answers and tool arguments ignore some keywords of their schema, such as `pattern`, `not` and `uniqueItems`.
- Prefix completion and strict tools are accepted everywhere, and have no effect.
- Retired model names are served as DeepSeek served them in September 2026. By now DeepSeek refuses some accounts.
- Providers other than DeepSeek are known by name and never answer.
"""

try:
    from deepseek_gateway.emulator._emulator import Emulator
    from deepseek_gateway.emulator._page import Row
    from deepseek_gateway.emulator._wire import ReceivedRequest
except ModuleNotFoundError as _error:
    if (_error.name or "").partition(".")[0] not in {"starlette", "uvicorn"}:
        raise
    raise ModuleNotFoundError(
        "The emulator is an extra of its own: pip install 'deepseek-gateway[emulator]'", name=_error.name
    ) from _error

__all__ = ["Emulator", "ReceivedRequest", "Row"]
