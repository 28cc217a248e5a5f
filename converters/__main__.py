"""`python -m converters` is the command line."""

from __future__ import annotations

from converters.cli.main import run

if __name__ == "__main__":
    run()
