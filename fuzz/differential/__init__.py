"""Differential fuzzing: what we read of a changed file against what its own library reads of it.

Real files of every container are taken apart, changed, and put together again with right checksums;
then our reader and torch's own (or the safetensors library) read the result. Ours finds what the
others find, or it refuses; there is no third thing.

Run: python -m fuzz.differential [--seconds 60] [--seed 0] [TARGET ...]
"""
