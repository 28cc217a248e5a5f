"""What `test_confined` builds in another process; it imports nothing that takes long."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import UnsafeInputError
from converters.formats.memory import MemoryShortError

if TYPE_CHECKING:
    from collections.abc import Callable


class Echo:
    """What a child builds: it gives back what it gets."""

    name = "echo"

    def __call__(self, pixels: Any) -> dict[str, Any]:
        return {"pixels": pixels, "sum": float(pixels.sum())}

    def many(self, pixels: Any, times: int) -> dict[str, Any]:
        return {str(index): pixels for index in range(times)}

    def write(self, _: Any) -> dict[str, Any]:
        """Everything that leaves a trace, and what came of each try."""
        tries: dict[str, Callable[[], object]] = {
            "write": lambda: Path("kept").write_text("other"),
            "make": lambda: Path("made").touch(),
            "truncate": lambda: os.truncate("kept", 0),
            "remove": lambda: Path("kept").unlink(),
            "rename": lambda: Path("kept").rename("moved"),
            "folder": lambda: Path("folder").mkdir(),
            "link": lambda: Path("linked").symlink_to("kept"),
            "shell": lambda: os.system("rm kept; touch made"),  # noqa: S605, S607
        }
        outcomes = {}
        for name, attempt in tries.items():
            try:
                attempt()
                outcomes[name] = "done"
            except OSError as error:
                outcomes[name] = type(error).__name__
        return outcomes

    def scratch(self, _: Any) -> dict[str, Any]:
        with tempfile.NamedTemporaryFile(delete=False) as file:
            file.write(b"left behind")
        return {"path": file.name, "cache": os.environ["TORCHINDUCTOR_CACHE_DIR"]}

    def end(self, _: Any) -> dict[str, Any]:
        os.kill(os.getpid(), 9)
        return {}

    def refuse(self, _: Any) -> dict[str, Any]:
        raise UnsafeInputError("It runs\x1b[2J code.")

    def short(self, _: Any) -> dict[str, Any]:
        raise MemoryShortError("it needs more")
