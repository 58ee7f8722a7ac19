"""`python -m evergreen_client types URL MODEL`: writes the types of a model's rows."""

from __future__ import annotations

import argparse
import os
import sys

from evergreen_client import Client, EvergreenError
from evergreen_client.types import module


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 done, 1 it could not be done, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m evergreen_client",
        description="Write a module with the type of a model's rows. EVERGREEN_KEY may hold an API key.",
    )
    parser.add_argument("command", choices=["types"])
    parser.add_argument("url", help="of the router, such as http://127.0.0.1:3000")
    parser.add_argument("model", help="such as flight_delay")
    asked = parser.parse_args(arguments)
    client = Client(asked.url, os.environ.get("EVERGREEN_KEY"))
    try:
        schema = client.row_schema(asked.model)
        print(module(asked.model, schema, client.release(asked.model)["candidate"]), end="")
    except EvergreenError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
