import pytest

vcr_config = pytest.fixture(lambda gateway_vcr_config: gateway_vcr_config)
