"""Families: the frameworks whose RegNets are known, one file for each.

Begin with `known.py`, the list of them, and `family.py`, which says what a family is, what its
reader is given and what its writer. Each is one object at the end of a file that holds all of it:
its names, what its checkpoints say, its own network, how a folder is written back: `pycls.py`,
`timm.py`, `torchvision.py`, `transformers.py`, `openmmlab.py`, `classy_vision.py`, `vissl.py`.
Where its configuration says much, that is read beside it (`pycls_config.py`). `docs/extending.md`
adds one.

From a checkpoint to a `source.py`, what is known of it: `wrapping.py` finds state dicts,
`levels.py` takes wrappers out of names, `changed.py` names what is no weight yet, `reading.py` is
what readers share, `keymap.py` reads names, `recognise.py` the architecture off the shapes,
`entries.py` and `heads.py` place what stands beside the network, `normalising.py` what stands in
front of it. `words.py`, `pixel_steps.py` and `config_text.py` read configurations. `manifest.py`
knows what was published.

To other code: `real_network.py` is the framework's own network,
`linear_rule.py` stages as frameworks ask for them.
"""
