"""Chat in the terminal, with the answers as they are written: `python chat.py`. An empty line or Ctrl-D ends it."""

import sys

import openai

from deepseek_gateway import create_client

GREY, PLAIN = ("\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "")


def answer(client: openai.OpenAI, messages: list) -> str:
    """Print an answer while it arrives, with the model's thinking in grey before it."""
    said = ""
    with client.chat.completions.create(model="deepseek-flash", messages=messages, stream=True) as stream:
        for chunk in stream:
            delta = chunk.choices[0].delta
            if thought := getattr(delta, "reasoning_content", None):  # DeepSeek's own field, which openai does not know
                print(f"{GREY}{thought}{PLAIN}", end="", flush=True)
            elif delta.content:
                print(delta.content if said else f"\n{delta.content}", end="", flush=True)
                said += delta.content
    print()
    return said


def main() -> None:
    """Ask question after question, each with the whole conversation before it."""
    messages = []
    with create_client() as client:
        try:
            while question := input("> "):
                asked = [*messages, {"role": "user", "content": question}]
                try:
                    messages = [*asked, {"role": "assistant", "content": answer(client, asked)}]
                except openai.APIError as error:  # the stream was cut, or the question was refused: ask again
                    print(f"\n{error}", file=sys.stderr)
        except (EOFError, KeyboardInterrupt):
            print()


if __name__ == "__main__":
    main()
