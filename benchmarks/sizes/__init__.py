"""Conversion and export of networks of any size, beside what users would pick instead.

``python -m benchmarks.sizes`` makes a source, lets every contender that reads it run in a process
of its own, watched from outside (:mod:`benchmarks.measure_closely`), deletes the source and makes
the next. So the disk holds one source and one output at most, whatever the number of contenders.
"""
