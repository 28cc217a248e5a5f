"""Serve the page with a converted folder: ``python examples/web/serve.py out/``.

Any web server does, with the folder beside the page under the name ``model``. This one also sends
the two headers without which a browser gives WebAssembly one thread only.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PAGE = Path(__file__).resolve().parent
RUNTIME = "onnxruntime-web/ort.wasm.min.mjs"
_MODEL = "/model/"


class Handler(SimpleHTTPRequestHandler):
    """The page's files at the root, those of the converted folder below ``/model/``.

    Args:
        folder: The converted folder.
    """

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def __init__(self, *args: object, folder: Path, **kwargs: object) -> None:
        self._folder = str(folder)
        super().__init__(*args, directory=str(PAGE), **kwargs)  # type: ignore[arg-type]

    def translate_path(self, path: str) -> str:
        """Give the file that an address stands for."""
        if not path.startswith(_MODEL):
            return super().translate_path(path)
        self.directory, page = self._folder, self.directory
        try:
            return super().translate_path(path.removeprefix(_MODEL[:-1]))
        finally:
            self.directory = page

    def end_headers(self) -> None:
        """Add what isolates the page, so that WebAssembly may use threads."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    """Serve until Ctrl-C; print the address first."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="what `regnet convert` wrote")
    parser.add_argument("--port", type=int, default=8000, help="0 takes any that is free")
    arguments = parser.parse_args()
    if not (PAGE / RUNTIME).is_file():
        sys.exit(f"examples/web/{RUNTIME} is missing; run `make web` once.")
    if not (arguments.folder / "config.json").is_file():
        sys.exit(
            f"{arguments.folder} holds no config.json; give a folder that `regnet convert` wrote."
        )
    handler = partial(Handler, folder=arguments.folder.resolve())
    with ThreadingHTTPServer(("127.0.0.1", arguments.port), handler) as server:
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
