"""Runs the scripts of frameworks in their environments."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tests.frameworks.drawn import Network

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "recorded"


@dataclass(frozen=True)
class Framework:
    """A framework with a virtual environment of its own.

    Attributes:
        environment: Behind ``.venv-``.
        script: Of ``tests/frameworks``.
        ending: Of the files that it saves.
        packages: What is installed there, as `recorded` files name it.
        others: What else it saves, by FILE: see :func:`tests.frameworks.drawn.save`.
        wider: Networks of its own that it saves, by FILE, and loads where it is written for.
        writes: The layer types that there is a ``--to`` of.
    """

    environment: str
    script: str
    ending: str
    packages: tuple[str, ...]
    others: tuple[str, ...] = ()
    wider: tuple[str, ...] = ()
    writes: str = ""

    @property
    def python(self) -> Path:
        """The interpreter of its environment, which need not exist."""
        return ROOT / f".venv-{self.environment}" / "bin" / "python"

    def act(
        self, action: str, network: str, path: Path, images: np.ndarray | None = None
    ) -> np.ndarray:
        """Have it record or run a network; see :mod:`tests.frameworks`.

        Args:
            action: ``record``, ``run`` or ``train``.
            network: Of :data:`tests.frameworks.drawn.NETWORKS`.
            path: The file that it writes or reads.
            images: Instead of the two of :func:`tests.frameworks.drawn.images`, (N, 3, H, W).

        Returns:
            Its logits of the images, (N, classes), in their type.
        """
        with tempfile.TemporaryDirectory() as folder:
            logits, pixels = Path(folder) / "logits.npy", Path(folder) / "images.npy"
            script = f"tests.frameworks.{self.script}"
            command = [self.python, "-m", script, action, network, path.absolute(), logits]
            if images is not None:
                np.save(pixels, images)
                command += ["--images", pixels]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            found: np.ndarray = np.load(logits)
            return found

    def versions(self) -> str:
        """What is installed in its environment, such as ``mlx 0.32.4``."""
        code = "import sys; from importlib.metadata import version\n"
        code += "print(', '.join(f'{name} {version(name)}' for name in sys.argv[1:]))"
        command = [self.python, "-c", code, *self.packages]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


TRANSFORMERS = ("sharded", "y.safetensors")
"""A folder of shards, and safetensors with names of TensorFlow or Flax; both of the network "y"."""

FRAMEWORKS = {
    "tensorflow": Framework(
        "transformers4",
        "in_tensorflow",
        ".h5",
        ("transformers", "tensorflow-cpu"),
        others=TRANSFORMERS,
        writes="xy",
    ),
    "flax": Framework(
        "transformers4",
        "in_flax",
        ".msgpack",
        ("transformers", "flax"),
        others=TRANSFORMERS,
        writes="y",
    ),
    "mlx-image": Framework("mlx", "mlx_image", ".safetensors", ("mlx-image", "mlx"), writes="xy"),
    "keras": Framework(
        "keras", "in_kimm", ".keras", ("kimm", "keras", "tensorflow-cpu"), writes="xy"
    ),
    "keras-applications": Framework(
        "keras",
        "in_keras_applications",
        ".h5",
        ("tf_keras", "tensorflow-cpu"),
        others=("whole.h5", "y.keras"),
        writes="xy",
    ),
    "kecam": Framework(
        "keras",
        "in_kecam",
        ".h5",
        ("kecam", "tf_keras", "tensorflow-cpu"),
        wider=("z.h5", "evo.keras"),
        writes="xy",
    ),
    "mindcv": Framework("mind", "mindcv", ".ckpt", ("mindcv", "mindspore")),
    "paddleclas": Framework(
        "paddle", "paddle_clas", ".pdparams", ("paddleclas", "paddlepaddle", "numpy")
    ),
}
"""As ``--from`` names them."""


def written(networks: dict[str, Network]) -> list[tuple[str, str]]:
    """Framework and network, where there is a ``--to`` of such a network."""
    return [
        (name, network)
        for name, framework in FRAMEWORKS.items()
        for network, described in networks.items()
        if described.layer_type in framework.writes
    ]
