"""Tests of programs that use this package: cassettes without secrets (extra `testing`)."""

from ._cassettes import leaks, vcr_config

__all__ = ["leaks", "vcr_config"]
