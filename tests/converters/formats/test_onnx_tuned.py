"""ONNX whose groups of channels lie in blocks: the same network, and proven to be.

Where channels lie is chosen by hand here, in ways that timing would not choose, since a fault must
show whatever is fastest.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from converters.errors import InputError
from converters.folder.folder import ConvertedFolder
from converters.formats.blocks import Blocks, fitting, reblocked
from converters.formats.format import ExportOptions
from converters.formats.onnx.export import self_contained
from converters.formats.onnx.form import GraphForm
from converters.formats.onnx.int8 import export_int8
from converters.formats.onnx.tuned import export_tuned, stated_tuning
from converters.parity.contents.tensors import certify
from converters.parity.locate.location import locate
from regnet.architecture import Act
from regnet.image_processor import RegNetImageProcessor
from tests.converters.cli.running import assert_one_sentence, regnet
from tests.converters.demo import sample_images
from tests.converters.parity.networks import Network, random_network

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.formats.blocks import Stages

NAMES = ("X", "Y, silu", "V")
"""Without and with squeeze-excitation; with a norm that no convolution takes in."""

WAYS: dict[str, Stages] = {
    "zeros behind each group": (Blocks(16),) * 3,
    "neighbours merged": (Blocks(8, 2),) * 3,
    "both, and a stage as it was": (Blocks(12, 4), None, Blocks(10, 3)),
}
"""For 2, 3 and 5 groups of 8."""


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Network]:
    made: dict[str, Network] = {}

    def network(name: str) -> Network:
        if name not in made:
            made[name] = random_network(tmp_path_factory.mktemp("network") / "folder", name)
        return made[name]

    return network


def written(network: Network, stages: Stages, path: Path) -> Path:
    self_contained(network.folder, GraphForm(stages=stages)).write(path)
    return path


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_it_computes_the_same_in_groups_as_wide_as_asked_for(
    name: str, way: str, networks: Callable[[str], Network], tmp_path: Path
) -> None:
    network = networks(name)
    path = written(network, WAYS[way], tmp_path / "tuned.onnx")

    verdict = network.report("self-contained", path).verdicts[-1]

    assert verdict.passed, verdict.reason
    assert verdict.tensors
    assert verdict.tensors.graph_compared
    widths = {
        tuple(tensor.dims)[1]
        for tensor in onnx.load(path).graph.initializer
        if tensor.dims[2:] == [3, 3] and ".stages." in tensor.name
    }
    assert widths == {blocks.width if blocks else 8 for blocks in WAYS[way]}


GROUPED = "regnet.encoder.stages.1.layers.1.layer.1.folded_weight"
REDUCE = "regnet.encoder.stages.1.layers.1.layer.0.folded_weight"
BIAS = "regnet.encoder.stages.1.layers.1.layer.0.folded_bias"
SQUEEZE = "regnet.encoder.stages.1.layers.1.layer.2.attention.0.weight"
EXCITE = "regnet.encoder.stages.1.layers.1.layer.2.attention.2.bias"
EXPAND = "regnet.encoder.stages.1.layers.1.layer.3.folded_weight"

FAULTS: dict[str, tuple[str, Any, str]] = {
    "a zero of a grouped kernel": (GROUPED, (0, 8, 1, 1), "has 1 numbers where zeros belong"),
    "between groups": (GROUPED, (0, slice(8, 16)), "has 72 numbers where zeros belong"),
    "a zero channel's own": (GROUPED, (31, 15, 0, 0), "has 1 numbers where zeros belong"),
    "a channel that is none": (REDUCE, 24, "has 24 numbers where zeros belong"),
    "its bias": (BIAS, 31, "has 1 numbers where zeros belong"),
    "squeezed with it": (SQUEEZE, (0, 24), "has 1 numbers where zeros belong"),
    "its gate": (EXCITE, 25, "has 1 numbers where zeros belong"),
    "expanded from it": (EXPAND, (slice(None), 24), "has 24 numbers where zeros belong"),
    "a weight": (GROUPED, (9, 9, 1, 1), "differs from the fold recomputed in float64"),
}
"""Of a stage of three groups of 8, merged by two: 24 channels of 32 are the network's."""


@pytest.mark.parametrize("fault", FAULTS)
def test_every_zero_and_every_weight_is_proven(
    fault: str, networks: Callable[[str], Network], tmp_path: Path
) -> None:
    network = networks("Y, silu")
    path = written(network, WAYS["neighbours merged"], tmp_path / "tuned.onnx")
    name, place, words = FAULTS[fault]

    def change(array: NDArray[np.float32]) -> None:
        array[place] += 1e-40 if "zeros" in words else 1

    changed(path, name, change)

    (clause,) = certify(network.folder, "onnx-tuned", path).wrong
    assert clause.startswith(f"{name} {words}")


def test_two_groups_that_exchanged_their_places_are_found(
    networks: Callable[[str], Network], tmp_path: Path
) -> None:
    """Each still reads its own channels, but the channels behind it are the other's."""
    network = networks("X")
    path = written(network, WAYS["neighbours merged"], tmp_path / "tuned.onnx")

    def exchange(kernel: NDArray[np.float32]) -> None:
        kernel[:16] = np.roll(kernel[:16], 8, axis=0)

    changed(path, GROUPED, exchange)

    assert f"{GROUPED} has" in certify(network.folder, "onnx-tuned", path).wrong[0]


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        (None, "has shape"),
        ("[[8, 2], null, [8, 2]]", "has shape"),
        ("[[16, 1], [8, 2], [8, 2]]", "has shape"),
        ("[[0, 2], [8, 2], [8, 2]]", "in blocks of none"),
        ("[[8], [8, 2, 7], 3]", "does not state how its channels lie"),
    ],
)
def test_a_file_that_states_other_blocks_fails(
    stated: str | None, words: str, networks: Callable[[str], Network], tmp_path: Path
) -> None:
    network = networks("X")
    path = written(network, WAYS["neighbours merged"], tmp_path / "tuned.onnx")
    model = onnx.load(path)
    (entry,) = (entry for entry in model.metadata_props if entry.key == "blocks")
    if stated is None:
        model.metadata_props.remove(entry)
    else:
        entry.value = stated
    onnx.save(model, path)

    assert words in " ".join(certify(network.folder, "onnx-tuned", path).wrong)


def test_in_int8_every_step_is_proven(tmp_path: Path) -> None:
    folder = random_network(tmp_path / "folder", "Y, silu").folder
    RegNetImageProcessor(size={"shortest_edge": 48}).save_pretrained(folder.path)
    folder, path = ConvertedFolder(folder.path), tmp_path / "tuned.onnx"
    pictures = [picture for picture, _ in sample_images(tmp_path / "pictures", 4)]
    form = GraphForm(stages=WAYS["neighbours merged"])
    options = ExportOptions(form=form, calibration_images=pictures, largest_loss=1.0)
    export_int8(folder, path, options)
    certificate = certify(folder, "onnx-int8-tuned", path)
    assert (certificate.wrong, certificate.graph_compared) == ((), True)

    def change(kernel: NDArray[np.int8]) -> None:
        kernel[0, 8, 1, 1] = 1

    changed(path, f"{GROUPED}.int8", change)

    (clause,) = certify(folder, "onnx-int8-tuned", path).wrong
    assert clause == f"{GROUPED} has 1 numbers where zeros belong"

    def no_number(steps: NDArray[np.float32]) -> None:
        steps[8 * 3] = np.nan

    export_int8(folder, path, options)
    changed(path, f"{GROUPED}.int8.scale", no_number)

    wrong = certify(folder, "onnx-int8-tuned", path).wrong
    assert f"{GROUPED} has steps that are no numbers" in wrong


def test_what_is_wrong_is_located_among_the_network_s_own_channels(
    networks: Callable[[str], Network], tmp_path: Path
) -> None:
    network = networks("Y, silu")
    path = written(network, WAYS["neighbours merged"], tmp_path / "tuned.onnx")
    pixels = np.random.default_rng(0).standard_normal((2, 3, 48, 48), np.float32)
    assert not locate(network.folder, "onnx-tuned", path, pixels).culprit

    def change(kernel: NDArray[np.float32]) -> None:
        kernel[17] *= 1.5

    changed(path, GROUPED, change)

    location = locate(network.folder, "onnx-tuned", path, pixels)
    assert (location.culprit, location.channel) == (GROUPED.removesuffix(".folded_weight"), 17)


def changed(path: Path, name: str, change: Callable[[NDArray[Any]], None]) -> None:
    """Change an initialiser of a file."""
    model = onnx.load(path)
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    array = numpy_helper.to_array(tensor).copy()
    change(array)
    tensor.raw_data = array.tobytes()
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("own", "block", "ways"),
    [
        (8, 16, (Blocks(16), Blocks(8, 2))),
        (24, 16, (Blocks(32), Blocks(24, 2))),
        (40, 16, (Blocks(48), Blocks(40, 2))),
        (20, 16, (Blocks(32), Blocks(24, 2), Blocks(20, 4))),
        (24, 8, ()),
        (1, 16, ()),
    ],
)
def test_the_ways_that_fit(own: int, block: int, ways: tuple[Blocks, ...]) -> None:
    assert fitting(own, block) == ways


def test_a_norm_that_sees_several_channels_keeps_its_stage_as_it_is(tmp_path: Path) -> None:
    folder = random_network(tmp_path / "folder", "group norm").folder
    with pytest.raises(InputError, match="or sees several channels at once"):
        reblocked(folder.architecture.operations, (Blocks(16), None, None))

    export_tuned(folder, tmp_path / "tuned.onnx", ExportOptions(block=16))

    assert stated_tuning(tmp_path / "tuned.onnx").groups == ((8, 8), (8, 8), (8, 8))


def test_an_activation_that_makes_something_of_zero_is_refused(
    networks: Callable[[str], Network],
) -> None:
    operations = [
        replace(op, function="sigmoid") if isinstance(op, Act) else op
        for op in networks("X").folder.architecture.operations
    ]
    with pytest.raises(InputError, match="would not keep zero channels zero"):
        reblocked(operations, (Blocks(16), None, None))


def test_a_named_block_is_reckoned_and_gives_the_same_bytes(
    networks: Callable[[str], Network], tmp_path: Path
) -> None:
    folder = networks("X").folder
    paths = [tmp_path / name for name in ("a.onnx", "b.onnx", "of 8.onnx")]
    for path, block in zip(paths, (16, 16, 8), strict=True):
        export_tuned(folder, path, ExportOptions(block=block))

    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert stated_tuning(paths[0]).groups == ((8, 16),) * 3
    assert stated_tuning(paths[2]).groups == ((8, 8),) * 3
    with pytest.raises(InputError, match="--block 12 is none that a runtime has"):
        export_tuned(folder, paths[0], ExportOptions(block=12))


def test_the_command_says_what_it_gained_and_records_it(folder: Path, tmp_path: Path) -> None:
    finished = regnet("tune", folder, cwd=tmp_path)
    assert (finished.status, finished.err) == (0, "")
    assert "times as fast as untuned" in " ".join(finished.out.split())
    recorded = json.loads((folder / "conversion.json").read_text("utf-8"))
    tuning = recorded["files"]["onnx/model_tuned.onnx"]["tuning"]
    assert tuning["speedup"] >= 1
    assert tuning["processor"]
    assert recorded["verification"]["passed"]

    source = folder / "onnx/model_tuned.onnx"
    sentence = assert_one_sentence(regnet("inspect", source, cwd=tmp_path), 2)
    assert "has its channels among zeros" in sentence
