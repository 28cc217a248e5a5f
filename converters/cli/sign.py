"""`regnet sign`: sign every file of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from converters.cli.console import Output
from converters.cli.options import Folder, Json, Quiet
from converters.cli.tables import to_verify
from converters.errors import escaped


def sign_command(
    folder: Folder,
    private_key: Annotated[
        Path,
        typer.Option(
            help="PEM file with an elliptic-curve key; its password is in REGNET_KEY_PASSWORD.",
            show_default=False,
        ),
    ],
    *,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Sign every file of a folder, as model_signing does; `regnet verify --public-key` checks it.

    Example: regnet sign out/ --private-key key.pem
    """
    from converters.folder.record import Record
    from converters.folder.signature import SIGNATURE_NAME, sign_folder
    from converters.parity.recording import unverified

    output = Output(as_json, quiet)
    record = Record.read(folder)
    signature = sign_folder(folder, private_key)
    output.result(Text(f"{folder / SIGNATURE_NAME} signs {signature.files} files"))
    if record is not None and (missing := unverified(record)):
        names = escaped(", ".join(missing))
        output.result(Text(f"No verdict is on record of {names}; run: {to_verify(folder)}"))
    output.record({"signature": SIGNATURE_NAME, "files": signature.files})
