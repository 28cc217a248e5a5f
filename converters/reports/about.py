"""What a report says of the folder and of what judged it: network, source, versions."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from converters.families.manifest import title_of
from converters.folder.folder import ConvertedFolder
from converters.folder.record import Record
from converters.parity.recording import versions
from converters.reports.network_plot import network_svg
from regnet.design_space import complexity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def about(folder: Path) -> dict[str, str]:
    """Say it, topic to words.

    Raises:
        InputError: If the folder cannot be used.
    """
    converted, record = ConvertedFolder(folder), Record.read(folder)
    config, size = converted.config, converted.image_size
    cost = complexity(config, size)
    classes = f"{config.num_labels} classes" if converted.has_classifier else "no classifier"
    source = record.fields.get("source", {}) if record else {}
    stated = [str(source[key]) for key in ("file", "framework") if key in source]
    return {
        "network": f"{title_of(config)}, {classes}",
        "cost": f"{cost.parameters:,} parameters, {cost.flops / 1e9:.3f} GFLOPs at {size} pixels",
        **({"converted from": ", ".join(stated)} if stated else {}),
        **judged_by(versions()),
    }


def network_plot(folder: Path) -> str:
    """The network as one ``<svg>`` element, at the size of image that the folder is for.

    Raises:
        InputError: If the folder cannot be used.
    """
    opened = ConvertedFolder(folder)
    title, size = title_of(opened.config), opened.image_size
    return network_svg(opened.config, title, size, classifier=opened.has_classifier)


def judged_by(used: Mapping[str, str]) -> dict[str, str]:
    """Of :func:`about` what is known without a folder.

    Args:
        used: What judged it, to the version of each.
    """
    stated = (f"{name} {number}" for name, number in used.items())
    return {"judged by": f"{', '.join(stated)}, Python {platform.python_version()}"}
