"""A maker of giants: checkpoints of any published network, in any framework's names and layout.

``python -m benchmarks.giants RegNetY-10B seer.torch --framework vissl --density 0.25`` writes
37.4 GB that take 10 GB of disk, in some seconds and some tens of MB of memory. Tests and benchmarks
need such files; nobody should need 40 GB of memory, or the download, to have one.

The numbers are cheap but alive: a forward pass stays finite through any depth, and tells images
apart (see :mod:`benchmarks.giants.signal`). They depend on the seed and on the reference's name of
a tensor alone, so one network is the same in every framework, layout and container.
"""
