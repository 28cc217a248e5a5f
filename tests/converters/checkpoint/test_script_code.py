"""TorchScript made to harm: refused with a sentence, within bounds of time and memory."""

from __future__ import annotations

import pickle
import zipfile
from time import perf_counter
from typing import TYPE_CHECKING

import pytest

from converters.checkpoint import open_checkpoint, script_code, script_program
from converters.checkpoint.torch_pickle import global_name, opcodes, program
from converters.errors import InputError, UnsafeInputError

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 20
"""On a machine with other things to do; none comes near it alone."""

CLASS = "class N(Module):\n  training : bool\n"
FORWARD = CLASS + "  def forward(self: __torch__.n.N,\n    x: Tensor) -> Tensor:\n"


def module(name: str, *attributes: bytes) -> bytes:
    """The opcodes of an object of a class with such names and values."""
    made = global_name("__torch__.n", name) + pickle.EMPTY_TUPLE + pickle.NEWOBJ
    state = pickle.EMPTY_DICT + pickle.MARK + b"".join(attributes) + pickle.SETITEMS
    return made + state + pickle.BUILD


ROOT = program(module("N", opcodes("training"), opcodes(False)))


def archive(folder: Path, code: str | bytes, **entries: bytes) -> Path:
    path = folder / "model.pt"
    content = {
        "version": b"3\n",
        "data.pkl": ROOT,
        "constants.pkl": program(pickle.EMPTY_TUPLE),
        "code/__torch__/n.py": code if isinstance(code, bytes) else code.encode(),
    }
    with zipfile.ZipFile(path, "w") as target:
        for name, data in (content | entries).items():
            kind = zipfile.ZIP_DEFLATED if name.startswith("code/") else zipfile.ZIP_STORED
            target.writestr(f"n/{name}", data, kind)
    return path


def refused(path: Path, kind: type[Exception] = InputError) -> str:
    start = perf_counter()
    with pytest.raises(kind) as caught, open_checkpoint(path):
        pass
    assert perf_counter() - start < SECONDS
    message = str(caught.value)
    assert len(message) < 600
    return message


def test_a_program_is_followed(tmp_path: Path) -> None:
    with open_checkpoint(archive(tmp_path, FORWARD + "    return torch.relu(x)\n")) as checkpoint:
        assert checkpoint.container == "torchscript"
        assert checkpoint.graph is not None
        (node,) = checkpoint.graph.nodes
        assert (node.domain, node.op, node.inputs) == ("aten", "relu", ("x",))
        assert checkpoint.graph.outputs[0].name == node.outputs[0]


def doubled(count: int) -> str:
    """Functions of which each calls the one before twice."""
    text = "def f0(x: Tensor) -> Tensor:\n  return torch.relu(x)\n"
    for index in range(1, count):
        call = f"__torch__.n.f{index - 1}"
        text += f"def f{index}(x: Tensor) -> Tensor:\n  return {call}({call}(x, ), )\n"
    return text + FORWARD + f"    return __torch__.n.f{count - 1}(x, )\n"


LISTS = "    l = [1, 1]\n" + "    l = [l, l]\n" * 60
TOO_MANY = f"comes behind {script_program.MAX_STEPS} steps"

ATTACKS: dict[str, tuple[str, str]] = {
    "recursion": (FORWARD + "    return (self).forward(x, )\n", "line 3|calls deep"),
    "functions that call each other": (
        "def a(x: Tensor) -> Tensor:\n  return __torch__.n.b(x, )\n"
        "def b(x: Tensor) -> Tensor:\n  return __torch__.n.a(x, )\n"
        + FORWARD
        + "    return __torch__.n.a(x, )\n",
        "calls deep",
    ),
    "exponential calls": (doubled(38), TOO_MANY),
    "a loop without end": (
        FORWARD + "    for i in range(9223372036854775807):\n      pass\n    return x\n",
        TOO_MANY,
    ),
    "loops in loops": (
        FORWARD
        + "".join(f"{' ' * (4 + 2 * i)}for i{i} in range(1000):\n" for i in range(9))
        + " " * 22
        + "pass\n    return x\n",
        TOO_MANY,
    ),
    "while": (FORWARD + "    while True:\n      pass\n    return x\n", "no RegNet needs"),
    "a list that grows": (
        FORWARD + "    l = [1]\n    for i in range(100000):\n      _ = torch.append(l, l)\n",
        "on a list, which no RegNet does",
    ),
    "lists of lists": (FORWARD + LISTS + "    return torch.relu(x, l)\n", "with several tensors"),
    "lists of lists as output": (FORWARD + LISTS + "    return l\n", "gives what|gives more"),
    "a number that grows": (
        FORWARD + "    n = 2\n    for i in range(99):\n      n = torch.mul(n, n)\n    return x\n",
        "more than 64 bits",
    ),
    "a text that grows": (
        FORWARD + "    s = 'a'\n    for i in range(99):\n      s = torch.add(s, s)\n    return s\n",
        "gives what no RegNet gives",
    ),
    "a huge number": (FORWARD + f"    return torch.add(x, 0x{'f' * 500_000})\n", "does not write"),
    "a number of many digits": (FORWARD + f"    return torch.add(x, {'9' * 9999})\n", "no code"),
    "a deep attribute": (FORWARD + f"    return x{'.a' * 100_000}\n", "no code that torch writes"),
    "a deep sum": (FORWARD + f"    return x{' + x' * 100_000}\n", "no code that torch writes"),
    "a less deep sum": (FORWARD + f"    return x{' + x' * 900}\n", "nested too deep|no code"),
    "deep minuses": (FORWARD + f"    return {'-' * 100_000}1\n", "no code that torch writes"),
    "a list of many": (FORWARD + f"    return [{'1, ' * 1000}]\n", "torch does not write"),
    "other operators": (FORWARD + "    return x @ x\n", "torch does not write"),
    "a name of more parts": (FORWARD + "    return torch.relu.x(x)\n", "torch does not write"),
    "an attribute with a value": (
        FORWARD.replace("training : bool", "n : int = 1") + "    return x\n",
        "has no place in the class",
    ),
    "a constant twice": (
        FORWARD.replace("training : bool", "n : Final[int] = 1\n  n : Final[int] = 2")
        + "    return x\n",
        "defines n twice",
    ),
    "a lambda": (FORWARD + "    return (lambda: x)()\n", "torch does not write"),
    "an import": ("import os\n" + FORWARD + "    return x\n", "stands outside of classes"),
    "a call of Python's": (FORWARD + "    return eval('1')\n", "reads eval, which nothing"),
    "a class of another kind": (
        FORWARD.replace("(Module)", "(object)") + "    return x\n",
        "is no class of a module",
    ),
    "a missing class": ("", "lacks N, which is used"),
    "a missing function": (FORWARD + "    return __torch__.o.f(x, )\n", "lacks f, which is used"),
    "no forward": (CLASS, "has no forward method"),
    "letters beyond ASCII": (FORWARD + "    return x # é\n", "characters that torch does not"),
    "division by nothing": (FORWARD + "    return torch.add(x, torch.div(1, 0))\n", "to nothing"),
    "no images": (FORWARD.replace("x: Tensor", "x: int=1") + "    return x\n", "takes nothing"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_code_that_is_made_to_harm_is_refused(attack: str, tmp_path: Path) -> None:
    code, words = ATTACKS[attack]
    message = refused(archive(tmp_path, code))
    assert any(word in message for word in words.split("|"))


@pytest.mark.parametrize("line", ["n : {}", "__annotations__['n'] = {}"])
def test_an_object_of_another_class_than_declared_is_refused(line: str, tmp_path: Path) -> None:
    """Torch runs the methods of the class that is declared, and crashes where it can."""
    other = FORWARD.replace("N", "M") + "    return torch.relu(x)\n"
    declared = CLASS + f"  {line.format('__torch__.n.M')}\n"
    code = FORWARD.replace(CLASS, declared) + "    return (self.n).forward(x, )\n" + other
    holding = {
        kind: program(module("N", opcodes("n"), module(kind, opcodes("training"), opcodes(False))))
        for kind in "MN"
    }

    open_checkpoint(archive(tmp_path, code, **{"data.pkl": holding["M"]})).close()
    message = refused(archive(tmp_path, code, **{"data.pkl": holding["N"]}))
    assert "reads n, which is of another class than declared" in message


def test_a_module_in_itself_is_refused(tmp_path: Path) -> None:
    made = global_name("__torch__.n", "N") + pickle.EMPTY_TUPLE + pickle.NEWOBJ + b"q\x00"
    state = pickle.EMPTY_DICT + pickle.MARK + opcodes("n") + b"h\x00" + pickle.SETITEMS
    code = FORWARD + "    return (self.n).forward(x, )\n"
    path = archive(tmp_path, code, **{"data.pkl": program(made + state + pickle.BUILD)})
    assert "calls deep" in refused(path)


def test_modules_nested_without_end_are_refused(tmp_path: Path) -> None:
    inner = module("N", opcodes("a"), opcodes(1))
    for _ in range(150):
        inner = module("N", opcodes("n"), inner)
    assert "nested" in refused(archive(tmp_path, FORWARD, **{"data.pkl": program(inner)}))


def test_code_of_any_length_is_not_read(tmp_path: Path) -> None:
    assert "more than of any RegNet" in refused(
        archive(tmp_path, b"#" * (script_code.MAX_FILE + 1))
    )


def test_code_whose_checksum_is_wrong_is_damaged(tmp_path: Path) -> None:
    path = archive(tmp_path, FORWARD + "    return torch.relu(x)\n")
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as content:
        entry = content.getinfo("n/code/__torch__/n.py")
    data[entry.header_offset + 30 + len(entry.filename) + 5] ^= 0xFF
    path.write_bytes(data)
    assert "is damaged" in refused(path)


def test_a_pickle_that_runs_code_is_unsafe(tmp_path: Path) -> None:
    evil = b"cposix\nsystem\n(S'touch ran'\ntR."
    for name in ("data.pkl", "constants.pkl", "extra/more.pkl"):
        path = archive(tmp_path, FORWARD + "    return x\n", **{name: evil})
        assert "system" in refused(path, UnsafeInputError)


def test_archives_of_torch_before_1_4_are_called_that(tmp_path: Path) -> None:
    path = archive(tmp_path, FORWARD + "    return x\n", **{"model.json": b"{}"})
    assert "of torch before 1.4" in refused(path)


def test_an_archive_without_a_module_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path, FORWARD, **{"data.pkl": program(pickle.EMPTY_DICT)})
    assert "without a module" in refused(path)


AXES = "  if torch.eq(torch.dim({}), {}):\n      x = torch.neg(x)\n    else:\n      pass\n"


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ("torch._unsafe_view(x, [1, -1])", 4),
        ("torch.squeeze(x)", 4),
        ("torch.t(self.weight)", 0),
        ("torch.mean(x, [2, 3])", 4),
        ("torch.flatten(x)", 4),
        ("torch.unsqueeze(x, 0)", 4),
    ],
)
def test_how_many_axes_a_value_has_is_not_guessed(value: str, wrong: int, tmp_path: Path) -> None:
    message = refused(branching(value, wrong, tmp_path))

    assert "computes differently for other images" in message


@pytest.mark.parametrize(("axes", "negated"), [(4, False), (5, True)])
def test_a_sum_has_as_many_axes_as_the_larger_of_two(
    axes: int, negated: bool, tmp_path: Path
) -> None:
    """A branch on them is taken as torch takes it."""
    with open_checkpoint(branching("torch.add(x, self.weight)", axes, tmp_path)) as checkpoint:
        assert checkpoint.graph
        assert ("neg" in [node.op for node in checkpoint.graph.nodes]) == negated


def branching(value: str, axes: int, folder: Path) -> Path:
    """A program that does something where a value has so many axes; its weight has five."""
    storage = pickle.MARK + opcodes("storage") + global_name("torch", "FloatStorage")
    storage += opcodes("0") + opcodes("cpu") + opcodes(32) + pickle.TUPLE + pickle.BINPERSID
    layout = opcodes(0) + opcodes((1, 2, 2, 2, 2)) + opcodes((16, 8, 4, 2, 1)) + opcodes(False)
    hooks = global_name("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    made = global_name("torch._utils", "_rebuild_tensor_v2")
    weight = made + pickle.MARK + storage + layout + hooks + pickle.TUPLE + pickle.REDUCE
    code = FORWARD.replace("training : bool", "training : bool\n  weight : Tensor")
    code += "  " + AXES.format(value, axes) + "    return x\n"
    entries = {"data.pkl": program(module("N", opcodes("weight"), weight)), "data/0": bytes(128)}
    return archive(folder, code, **entries)
