"""Entry points of ``torch.hub``: a converted folder as a PyTorch model.

``torch.hub.load(checkout, "regnet", "out/", source="local")``, where ``checkout`` is a copy of this
repository. Nothing is fetched, and of the repository nothing but the reference model is imported:
late, since ``torch.hub.list`` takes whatever can be called here for an entry point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from regnet import RegNetForImageClassification, RegNetImageProcessor, RegNetModel

dependencies = ["torch", "numpy", "PIL"]
"""What ``torch.hub`` asks to be installed."""


def regnet(folder: str, **keywords: Any) -> RegNetForImageClassification:
    """Load a classifier, in evaluation mode, its weights in the type they are stored in.

    Args:
        folder: What `regnet convert` or transformers wrote.
        **keywords: Of ``from_pretrained``, such as ``dtype="float16"``.

    Returns:
        A module from pixels (N, num_channels, H, W), as :func:`processor` makes them, to an output
        with ``logits`` (N, classes).

    Raises:
        FileNotFoundError: If a file is missing.
        TypeError: If a keyword is unknown.
        ValueError: If a file cannot be used.
    """
    from regnet import RegNetForImageClassification

    model: RegNetForImageClassification
    model = RegNetForImageClassification.from_pretrained(folder, **keywords)
    return model


def trunk(folder: str, **keywords: Any) -> RegNetModel:
    """Load the network without its classifier, in evaluation mode.

    Args:
        folder: As for :func:`regnet`; a classifier in it is left out.
        **keywords: As for :func:`regnet`.

    Returns:
        A module from pixels (N, num_channels, H, W) to an output with ``last_hidden_state``
        (N, C, h, w) and ``pooler_output`` (N, C, 1, 1).

    Raises:
        FileNotFoundError: If a file is missing.
        TypeError: If a keyword is unknown.
        ValueError: If a file cannot be used.
    """
    from regnet import RegNetModel

    model: RegNetModel = RegNetModel.from_pretrained(folder, **keywords)
    return model


def processor(folder: str, **keywords: Any) -> RegNetImageProcessor:
    """Load what turns pictures into the pixels that the folder's network takes.

    Args:
        folder: As for :func:`regnet`.
        **keywords: Of ``from_pretrained``, such as ``size=288``.

    Raises:
        FileNotFoundError: If the folder has no ``preprocessor_config.json``.
        ValueError: If the file cannot be used.
    """
    from regnet import RegNetImageProcessor

    return RegNetImageProcessor.from_pretrained(folder, **keywords)
