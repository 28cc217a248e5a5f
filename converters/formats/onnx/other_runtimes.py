"""Other programs that run ``model.onnx``: tract, MNN, OpenCV, and ONNX Runtime's own format.

Each reads the file in its own way, so a verdict in one says something of its own. They run in a
process of their own, which has a folder for what is written on the way
(:mod:`converters.formats.confined`): MNN prints when it is imported, and any may crash.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from converters.errors import DISTRIBUTION, is_installed, not_installed, require_extra
from converters.formats.runtime import ArtefactRuntime
from regnet.architecture import PIXELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    Outputs = dict[str, NDArray[np.float32]]

_SMALL_TILES = (3, 0)
"""MNN's hint on the memory of Winograd's transforms (``WINOGRAD_MEMORY_LEVEL`` of its
``Interpreter.hpp``). With large tiles, which it takes on one thread, 3x3 convolutions have some 25
times the error of float32."""

_NEED = "artefacts are judged in it"


class TractRuntime(ArtefactRuntime):
    """Runs it in tract, an engine in Rust; on one thread, however many are asked for."""

    def __init__(self, path: Path, output_names: Sequence[str] = (), threads: int = 1) -> None:
        del threads
        self.name = f"tract {require_extra('tract', 'tract', _NEED)}"
        import tract

        self._program = tract.onnx().load(str(path)).into_model().into_runnable()
        self._names = tuple(output_names)  # it knows outputs by what makes them

    def __call__(self, pixel_values: NDArray[np.float32]) -> Outputs:
        """Compute every output."""
        arrays = (output.to_numpy() for output in self._program.run([pixel_values]))
        return dict(zip(self._names, arrays, strict=True))


class OpenCvRuntime(ArtefactRuntime):
    """Runs it in OpenCV's newer engine, which takes images of any size."""

    def __init__(self, path: Path, output_names: Sequence[str] = (), threads: int = 1) -> None:
        if not is_installed("cv2"):  # several distributions bring it
            raise not_installed("opencv", _NEED, f'"{DISTRIBUTION}[opencv]"')
        import cv2

        cv2.setNumThreads(threads)
        self.name = f"opencv {cv2.__version__}"
        self._network = cv2.dnn.readNetFromONNX(str(path), cv2.dnn.ENGINE_NEW)
        self._names = list(output_names)

    def __call__(self, pixel_values: NDArray[np.float32]) -> Outputs:
        """Compute every output."""
        self._network.setInput(pixel_values, PIXELS)
        arrays = self._network.forward(self._names)
        return dict(zip(self._names, arrays, strict=True))


class MnnRuntime(ArtefactRuntime):
    """Runs what MNN's own converter makes of it.

    The converter is called where its library is. The module around that, ``MNN.tools``, installs a
    package when it is imported (MNN 3.6.1), and reports what is converted to a server.
    """

    def __init__(self, path: Path, output_names: Sequence[str] = (), threads: int = 1) -> None:
        self.name = f"mnn {require_extra('MNN', 'mnn', _NEED)}"
        import _tools
        import MNN

        with TemporaryDirectory() as folder:
            converted = Path(folder) / "model.mnn"
            files = ("--modelFile", str(path), "--MNNModel", str(converted))
            _tools.mnnconvert(["mnnconvert", "-f", "ONNX", *files, "--bizCode", "regnet"])
            if not converted.is_file():
                raise RuntimeError("MNN's converter does not take it")
            self._network = MNN.Interpreter(str(converted))
        self._network.setSessionHint(*_SMALL_TILES)
        settings = {"backend": "CPU", "precision": "high", "numThread": threads}
        self._session = self._network.createSession(settings)
        self._names = tuple(output_names)

    def __call__(self, pixel_values: NDArray[np.float32]) -> Outputs:
        """Compute every output."""
        import MNN
        import numpy as np

        def tensor(array: NDArray[np.float32]) -> MNN.Tensor:
            kind, order = MNN.Halide_Type_Float, MNN.Tensor_DimensionType_Caffe
            return MNN.Tensor(array.shape, kind, array, order)

        network, session = self._network, self._session
        pixels = network.getSessionInput(session, PIXELS)
        network.resizeTensor(pixels, pixel_values.shape)
        network.resizeSession(session)
        pixels.copyFrom(tensor(np.ascontiguousarray(pixel_values)))
        network.runSession(session)
        outputs = {}
        for name in self._names:
            value = network.getSessionOutput(session, name)
            held = tensor(np.empty(value.getShape(), np.float32))
            value.copyToHostTensor(held)
            outputs[name] = np.array(held.getData(), np.float32).reshape(value.getShape())
        return outputs


class OrtFileRuntime(ArtefactRuntime):
    """Runs it in ONNX Runtime, saved as ``.ort`` and loaded again, as its mobile builds want it."""

    def __init__(self, path: Path, _: Sequence[str] = (), threads: int = 1) -> None:
        from converters.formats.onnx.runtime import NAME, open_session, session_options

        self.name = f"{NAME} (.ort)"
        with TemporaryDirectory() as folder:
            saved = Path(folder) / "model.ort"
            options = session_options(threads)
            options.add_session_config_entry("session.save_model_format", "ORT")
            options.optimized_model_filepath = str(saved)
            open_session(path, options)
            self._session = open_session(saved, session_options(threads))

    def __call__(self, pixel_values: NDArray[np.float32]) -> Outputs:
        """Compute every output."""
        from converters.formats.onnx.runtime import run_session

        return run_session(self._session, PIXELS, pixel_values)
