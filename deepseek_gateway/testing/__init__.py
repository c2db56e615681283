"""Cassettes without secrets, for tests of programs that use this package (extra `testing`).

With pytest-recording, a project's `conftest.py` needs only

    @pytest.fixture
    def vcr_config():
        return deepseek_gateway.testing.vcr_config(GatewayConfig.from_env())

Requests are stored under one address, whichever account, gateway, custom domain or emulator they went to. A cassette
that one person recorded therefore plays for everybody.
"""

from ._leaks import leaks
from ._redaction import vcr_config

__all__ = ["leaks", "vcr_config"]
