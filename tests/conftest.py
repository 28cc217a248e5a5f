"""What every test needs before it imports anything."""

from __future__ import annotations

import torch

try:
    import torchvision  # noqa: F401
except RuntimeError:  # its wheel needs two operators that a CPU build of torch does not bring
    LIBRARY = torch.library.Library("torchvision", "DEF")
    LIBRARY.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    LIBRARY.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
