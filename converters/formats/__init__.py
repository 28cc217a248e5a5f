"""Formats: how a converted folder's network is written as an artefact, and run again.

Begin with `format.py`, which says what a format is, and `registry.py`, which lists those that there
are. Each is one object at the end of a file that holds all of it: `torchscript.py`, `pt2.py`,
`aotinductor.py`, `openvino.py`, `executorch.py`, `stablehlo.py`, `coreai.py`, and for the five
kinds of ONNX files `onnx/formats.py`. `docs/extending.md` adds one.

The rest is what they share: `runtime.py` and `memory.py` for whoever runs an artefact, with
`confined/` for programs of strangers; `beside.py`, what goes on beside other work, and
`torch_process.py`, the second process, which has torch; `reference.py` and `lockstep.py`, the
reference model whole and operation by operation, as `operations.py` computes them;
`torch_program.py`, what torch traces and loads.

Nothing here knows how an artefact is judged: what it must hold is proven in `converters.parity`, by
code that shares nothing with what wrote it.
"""
