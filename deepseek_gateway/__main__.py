"""The command `deepseek-gateway`, also `python -m deepseek_gateway`."""

import sys

_OF_THE_COMMAND_LINE = {"typer", "rich", "click", "uvicorn", "h11"}


def main() -> None:
    """Run the command line, or say which extra is missing and exit with status 2."""
    try:
        from .cli.app import app  # noqa: PLC0415  # it needs the extra

        app(prog_name="deepseek-gateway")
    except ModuleNotFoundError as error:
        for_emulator = "deepseek-gateway[emulator]" in str(error)  # the emulator says so itself
        if not for_emulator and (error.name or "").partition(".")[0] not in _OF_THE_COMMAND_LINE:
            raise
        from .cli.installation import extra_command  # noqa: PLC0415  # only this message needs it

        extra = "emulator" if for_emulator else "cli"
        sys.stderr.write(f"This command needs the extra `{extra}`: {extra_command(extra)}\n")
        sys.exit(2)
    except KeyboardInterrupt:  # before a command could begin
        sys.exit(130)


if __name__ == "__main__":
    main()
