"""ONNX: its forms, its quantised twin, and its runtime."""
