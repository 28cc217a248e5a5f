"""The fuzz targets without the fuzzer, and valid checkpoints with one field changed."""
