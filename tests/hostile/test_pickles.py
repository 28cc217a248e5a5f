"""1 to 5: pickles that run code, or break who reads them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import collect_env

from tests.converters.checkpoint.files import in_zip, saved, tensor_pickle
from tests.converters.checkpoint.test_code_in_pickles import Call

if TYPE_CHECKING:
    from tests.hostile.victim import Victim


def checkpoint_with(payload: object) -> bytes:
    return saved({"model_state": {"stem.conv.weight": torch.ones(2)}, "epoch": payload})


def test_01_a_pickle_that_calls_os_system(victim: Victim) -> None:
    victim.put(checkpoint_with(Call(os.system, "touch ran")))
    victim.refused(3)
    victim.refused(3, "inspect", "model.pyth")
    assert not Path("ran").exists()


def test_02_a_function_of_an_allowed_package_as_gadget(victim: Victim) -> None:
    victim.put(checkpoint_with(Call(collect_env.run, "touch ran")))
    victim.refused(3)
    assert not Path("ran").exists()


def test_03_a_call_before_a_corrupted_tail(victim: Victim) -> None:
    victim.put(b"\x80\x02cposix\nsystem\nX\x09\x00\x00\x00touch ran\x85R\x80\x02U\xff")
    victim.refused(3)
    victim.put(b"\x80\x02]}b0cposix\nsystem\nX\x09\x00\x00\x00touch ran\x85R.", "behind.pkl")
    victim.refused(3, "convert", "behind.pkl", "out", "-q")
    victim.put(b"\x80\x02\x82\x01)R.", "extension.pkl")
    victim.refused(3, "inspect", "extension.pkl")
    assert not Path("ran").exists()


def test_04_an_item_set_on_a_list_and_a_storage_of_another_size(victim: Victim) -> None:
    victim.put(in_zip(b"\x80\x02]K\x01K\x01s."))
    victim.refused(2)
    victim.put(in_zip(tensor_pickle(numel=3)))
    victim.refused(2)


def test_05_a_loader_named_in_the_pickle_that_would_load_another(victim: Victim) -> None:
    pickled: Any = b"\x80\x02cthing.models\nfrom_pretrained\nX\x09\x00\x00\x00evil/repo\x85R."
    victim.put(in_zip(pickled))
    victim.refused(3)
