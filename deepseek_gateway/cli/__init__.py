"""The command line; its entry point is `deepseek_gateway.__main__`."""
