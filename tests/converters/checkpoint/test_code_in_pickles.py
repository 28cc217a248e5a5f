"""A pickle that would run code is refused as unsafe, and nothing of it runs."""

from __future__ import annotations

import os
import pickle
from typing import TYPE_CHECKING

import pytest
import torch

from converters.errors import UnsafeInputError
from tests.converters.checkpoint.files import refusal, saved

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Call:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def attacks(target: str) -> dict[str, Call]:
    """Calls that create the file ``target`` when they are made, by the name they are known by."""
    import builtins
    import importlib
    import operator
    import runpy
    import subprocess

    from torch.utils import collect_env

    return {
        "posix.system": Call(os.system, f"touch {target}"),
        "subprocess.Popen": Call(subprocess.Popen, ["touch", target]),
        "builtins.eval": Call(builtins.eval, f"open({target!r}, 'w')"),
        "builtins.exec": Call(builtins.exec, f"open({target!r}, 'w')"),
        "open": Call(open, target, "w"),
        "builtins.getattr": Call(getattr, Call(importlib.import_module, "os"), "system"),
        "operator.methodcaller": Call(operator.methodcaller, "touch", target),
        "runpy.run_path": Call(runpy.run_path, target),
        "torch.utils.collect_env.run": Call(collect_env.run, f"touch {target}"),
        "torch.serialization.load": Call(torch.load, target),
        "pickle.loads": Call(pickle.loads, pickle.dumps(Call(os.system, f"touch {target}"))),
        "torch.storage._load_from_bytes": Call(torch.storage._load_from_bytes, b""),
    }


def bare_pickle(protocol: int) -> Callable[[object], bytes]:
    return lambda tree: pickle.dumps(tree, protocol)


WRITERS: dict[str, Callable[[object], bytes]] = {
    "zip": saved,
    "zip, protocol 4": lambda tree: saved(tree, "zip", 4),
    "legacy": lambda tree: saved(tree, "legacy"),
    "pickle 0": bare_pickle(0),
    "pickle 1": bare_pickle(1),
    "pickle 2": bare_pickle(2),
    "pickle 4": bare_pickle(4),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("name", attacks(""))
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(
    name: str, writer: str, tmp_path: Path
) -> None:
    target = tmp_path / "created"
    tree = {"weight": torch.ones(2) if writer == "zip" else 0, "x": [attacks(str(target))[name]]}
    message = refusal(WRITERS[writer](tree), tmp_path, UnsafeInputError)
    assert name.rpartition(".")[2] in message
    assert "at byte " in message
    assert "nothing was run" in message
    assert not target.exists()


SPELLINGS = {
    "posix.system": b"cposix\nsystem\n(S'touch x'\ntR.",
    "os.popen": b"(S'touch x'\nios\npopen\n.",
    "__builtin__.execfile": b"(c__builtin__\nexecfile\nS'x'\no.",
    "commands.getoutput": b"\x80\x02ccommands\ngetoutput\nU\x01x\x85R.",
    "numpy.linalg.os.system": b"\x80\x04\x8c\x0cnumpy.linalg\x8c\x09os.system\x93\x8c\x01x\x85R.",
    "a.b.__class__.x": b"\x80\x04\x8c\x01a\x8c\x0db.__class__.x\x93.",
    "some.where.from_pretrained": b"\x80\x02csome.where\nfrom_pretrained\nU\x01x\x85R.",
    "what collections.abc.f returns": b"\x80\x02ccollections.abc\nf\n)R)R.",
    "itertools.imap": b"citertools\nimap\n(tR.",  # Python 2's name of builtins.map
    "httplib.HTTPSConnection": b"chttplib\nHTTPSConnection\n(S'x'\ntR.",
    "a.b, which it changes": b"\x80\x02ca\nb\n}U\x01xU\x01ysb.",
    "extension 1 of the program that loads it": b"\x80\x02\x82\x01)R.",
    "extension 258 of the program that loads it": b"\x80\x02\x83\x02\x01)R.",
    "extension 3 of the program that loads it": b"\x80\x02\x84\x03\0\0\0)R.",
    # The call comes before the pickle breaks off, where loaders have made it already.
    "nt.system": b"\x80\x02cnt\nsystem\nU\x01x\x85R\x80\x02U\xff",
}


@pytest.mark.parametrize(("name", "content"), SPELLINGS.items(), ids=SPELLINGS)
def test_every_spelling_of_a_call_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    assert name in refusal(content, tmp_path, UnsafeInputError)


def test_the_message_says_at_which_byte_the_code_is_named(tmp_path: Path) -> None:
    content = pickle.dumps([1, 2, Call(os.system, "true")], protocol=2)
    message = refusal(content, tmp_path, UnsafeInputError)
    assert f"at byte {content.index(b'cposix')} it names posix.system" in message
