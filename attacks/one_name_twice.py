"""A safetensors header that names a tensor twice: what one program checks another does not load.

The library takes the last of the two, other JSON readers the first.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from attacks.shown import fell, ours, temporary_folder

_ENTRY = '"weight":{"dtype":"F32","shape":[%s],"data_offsets":[0,8]}'


def main() -> None:
    """Make the file and show it to safetensors and to us."""
    with temporary_folder():
        header = ("{" + _ENTRY % "2" + "," + _ENTRY % "1,2" + "}").encode()
        data = torch.ones(2).numpy().tobytes()
        Path("net.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
        shape = list(load_file("net.safetensors")["weight"].shape)
        fell("safetensors.torch.load_file", f"it loaded {shape} where the first entry says [2]")
        ours("net.safetensors")


if __name__ == "__main__":
    main()
