"""The certificate of ``.tflite`` files."""
