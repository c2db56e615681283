"""A local Cloudflare AI Gateway with DeepSeek behind it, for demos, tests and development.

It needs no account, no network and no model, and its answers are the same on every run::

    from deepseek_gateway import create_client
    from deepseek_gateway.emulator import Emulator

    with Emulator() as emulator, create_client(emulator.config()) as client:
        answer = client.chat.completions.create(
            model="deepseek-flash", messages=[{"role": "user", "content": "What is Cloudflare?"}]
        )
    assert emulator.requests[0].headers["cf-aig-authorization"] == f"Bearer {emulator.gateway_token}"
    assert "cf-aig-authorization" not in emulator.requests[0].upstream.headers

What the owner of a gateway may switch on are arguments of `Emulator`, such as `guardrails` and `rate_limit`, and
`Emulator.fail_next()` lets anything go wrong that can: errors of the gateway, of Cloudflare's edge and of DeepSeek,
streams that break off, connections that are reset.

Anything that speaks HTTP can use it: `Emulator.url` is an ordinary loopback URL. It answers on all three routes as
the two services are documented, or were seen, to answer, and it is an independent reading of them: it shares no code
with the clients of this library. A browser that opens the URL sees the last exchanges as they happen, with secrets
masked; the command `deepseek-gateway emulator` serves until Ctrl-C. Needs the extra:
``pip install 'deepseek-gateway[emulator]'``.

A failure of the emulator itself is answered with 500 and the header ``x-emulator-fault: 1``, and raised at the end of
the `with` block.

Known gaps:

- Files and images are accepted and ignored; there is no endpoint for files.
- Of DeepSeek's APIs the Anthropic format, and of the gateway's the universal endpoint and WebSockets, are missing.
- Prefix completion and strict tools are accepted under `/beta` as elsewhere, without their meaning.
- Retired model names are still answered as DeepSeek did in September 2026, although they are announced as retired; only
  some accounts are refused by now.
- Other providers than DeepSeek are known by name and never answer.
"""

try:
    from deepseek_gateway.emulator._exchange import ReceivedRequest
    from deepseek_gateway.emulator._page import Row
    from deepseek_gateway.emulator._server import Emulator
except ModuleNotFoundError as _error:
    if (_error.name or "").partition(".")[0] not in {"starlette", "uvicorn"}:
        raise
    raise ModuleNotFoundError(
        "The emulator is an extra of its own: pip install 'deepseek-gateway[emulator]'", name=_error.name
    ) from _error

__all__ = ["Emulator", "ReceivedRequest", "Row"]
