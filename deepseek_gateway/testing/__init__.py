"""Tests of programs that use this package (extra `testing`).

The module `plugin` is a pytest plugin that pytest loads by itself. It has fixtures for the emulator and for cassettes.
The functions here keep secrets out of cassettes without pytest-recording as well:

    with vcr.use_cassette("answer.yaml", **vcr_config(GatewayConfig.from_env())):
        ...

Requests are stored under one address, whichever account, gateway, custom domain or emulator they went to. A cassette
that one person recorded therefore plays for everybody.
"""

from ._leaks import leaks
from ._redaction import vcr_config

__all__ = ["leaks", "vcr_config"]
