"""ONNX Runtime without its telemetry; everybody here takes it from this module.

Its library (1.32, on Linux), on being loaded, writes an identifier of the machine and a file of
events below HOME and a session's below TMPDIR, and says so on stderr where it cannot. Its own
switch, ``disable_telemetry_events``, comes too late for that; the library looks at the environment.
"""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

onnxruntime.disable_telemetry_events()  # by whoever imported it before us

__all__ = ["onnxruntime"]
