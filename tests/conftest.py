"""What every test needs before it imports anything."""

from __future__ import annotations

import torch


def _declare_torchvision_operators() -> None:
    """Let torchvision import beside a CPU build of torch, whose wheel lacks its two operators.

    Only declared when the import fails, so an installation where torchvision works is left alone.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")  # noqa: TOR901
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declare_torchvision_operators.library = library  # type: ignore[attr-defined]


_declare_torchvision_operators()
