"""The version is written once, in pyproject.toml."""

import tomllib
from importlib.metadata import version
from pathlib import Path

import deepseek_gateway

PYPROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))


def test_version_attribute_is_the_version_in_pyproject() -> None:
    assert deepseek_gateway.__version__ == version("deepseek-gateway") == PYPROJECT["project"]["version"]
