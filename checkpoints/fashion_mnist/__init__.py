"""A small RegNetY that the real pycls trained on Fashion-MNIST, and what it is shown with."""
