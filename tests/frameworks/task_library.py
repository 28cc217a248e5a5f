"""Has the libraries that phones classify images with open a ``.tflite`` file, and nothing else.

It runs in ``.venv-tasks``: ``python tests/frameworks/task_library.py READER FILE IMAGE`` prints the
names of the classes and their scores, as JSON, of an image as ``.npy``, bytes (height, width, 3).
How the image is normalised and what classes are called is in the file alone.

Both libraries import what plays sound and draws, which is not installed.
"""

from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import Any

import numpy as np

for _name in ("sounddevice", "cv2", "matplotlib", "matplotlib.pyplot"):
    sys.modules[_name] = ModuleType(_name)


def by_tflite_support(file: str, image: np.ndarray) -> Any:
    """The Task Library of TensorFlow Lite Support, in C++."""
    from tensorflow_lite_support.python.task.vision import image_classifier
    from tensorflow_lite_support.python.task.vision.core import tensor_image

    classifier = image_classifier.ImageClassifier.create_from_file(file)
    return classifier.classify(tensor_image.TensorImage.create_from_array(image))


def by_mediapipe(file: str, image: np.ndarray) -> Any:
    """What came after it; it takes one mean and one deviation for all channels."""
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    base = BaseOptions(model_asset_path=file)
    options = vision.ImageClassifierOptions(base_options=base)
    classifier = vision.ImageClassifier.create_from_options(options)
    return classifier.classify(mediapipe.Image(mediapipe.ImageFormat.SRGB, image))


READERS = {"tflite-support": by_tflite_support, "mediapipe": by_mediapipe}


if __name__ == "__main__":
    found = READERS[sys.argv[1]](sys.argv[2], np.load(sys.argv[3]))
    scores = {each.category_name: each.score for each in found.classifications[0].categories}
    sys.stdout.write(json.dumps(scores))
