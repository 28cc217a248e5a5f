"""`python -m regnet` is the command line that is installed as `regnet`.

It is found as the shell's is, by that name, since the reference model knows nothing of those who
convert to it.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points


def run() -> object:
    """Call what is installed as ``regnet``; end with a sentence if nothing is."""
    for found in entry_points(group="console_scripts", name="regnet"):
        return found.load()()
    sys.exit("No command `regnet` is installed; install regnet-converters with pip.")


if __name__ == "__main__":
    run()
