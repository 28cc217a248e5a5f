"""Lets torchvision be imported beside a CPU build of torch; import this first."""

from typing import Any

import torch

try:
    import torchvision  # noqa: F401
except RuntimeError:  # its wheel needs two operators that a CPU build of torch does not bring
    LIBRARY: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    LIBRARY.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    LIBRARY.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
