"""What commands and confined programs import; the server of `forks` has it behind it.

Not onnxruntime, which takes little time and starts a thread, that a fork would lack.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # which counts when torch is loaded

import torch  # noqa: F401

import converters.checkpoint.onnx_container
import converters.checkpoint.pt2_container
import converters.checkpoint.script_container
import converters.families.exported
import converters.formats.registry
import converters.jobs.compare
import converters.jobs.convert
import converters.jobs.writeback
import converters.parity.computed
import converters.parity.verify
import converters.reports.card  # noqa: F401
import regnet.model  # noqa: F401
import tests.converters.cli.running  # noqa: F401
from converters.cli import app, front

for name in front.COMMANDS:
    app.alone(name)
