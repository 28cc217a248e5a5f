"""LiteRT, once TensorFlow Lite: the format, in float32 and smaller, and its runtime."""
