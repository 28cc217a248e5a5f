# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "pycls==0.1.1", "yacs==0.1.8", "torch==2.13.0", "numpy==2.4.6", "pillow==13.0.0",
# ]
# ///
"""Trains and evaluates the bundled checkpoint with the real pycls package.

pycls builds the network, the optimizer and the learning rates, and writes the file; this script
brings only what pycls 0.1.1 lacks: Fashion-MNIST and a training loop for CPUs. README.md beside it
says how to run it.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gzip
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from unittest import mock

import numpy as np
import torch
from numpy._core.multiarray import scalar
from PIL import Image
from pycls.core import builders, checkpoint, optimizer
from pycls.core.config import cfg

if TYPE_CHECKING:
    from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
CONFIG = HERE / "RegNetY-FashionMNIST.yaml"
CHECKPOINT = HERE / "RegNetY-FashionMNIST.pyth"
SAMPLES = HERE / "samples.npz"
SAMPLES_PER_CLASS = 10

DATASET = Path("/usr/share/datasets/fashion-mnist")  # Debian package dataset-fashion-mnist
SIDE = 28  # pixels of a Fashion-MNIST image
IMAGE_HEADER, LABEL_HEADER = 16, 8  # bytes before the payload of an IDX file

# pycls/datasets/imagenet.py: the channels are blue, green, red.
BGR_MEAN = torch.tensor([0.406, 0.456, 0.485])
BGR_STD = torch.tensor([0.225, 0.224, 0.229])

# Red, green, blue: lowest factor in 255ths, number of factors, and a step coprime to that number.
TINT_LOW, TINT_SPAN, TINT_STEP = np.array([[216, 96, 24], [40, 80, 64], [17, 33, 45]])

CROP_PADDING = 4  # pixels on each side at TRAIN.IM_SIZE


class Split(NamedTuple):
    """Images, uint8 RGB (N, S, S, 3), and their classes, int64 (N,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def tint(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colours each image in a warm light that depends on nothing but its index.

    Fashion-MNIST is grey, and a network trained on grey cannot tell BGR from RGB. Here red is
    always brighter than green, and green than blue, by amounts that vary from image to image, so a
    conversion that forgets the channel order loses most of the accuracy.

    Args:
        grey: uint8 (N, 28, 28), a whole split in its own order.

    Returns:
        uint8 (N, 28, 28, 3), channels red, green, blue; black stays black.
    """
    index = np.arange(len(grey))[:, None]
    factors = (TINT_LOW + index * TINT_STEP % TINT_SPAN).astype(np.uint16)[:, None, None, :]
    tinted: NDArray[np.uint16] = grey[..., None] * factors // 255
    return tinted.astype(np.uint8)


def load_split(folder: Path, prefix: str) -> Split:
    """Reads one split ("train" or "t10k") of the gzipped IDX files and tints it, 28 x 28 pixels."""
    images = gzip.decompress((folder / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())
    grey = np.frombuffer(images, np.uint8, offset=IMAGE_HEADER).reshape(-1, SIDE, SIDE)
    return Split(tint(grey), np.frombuffer(labels, np.uint8, offset=LABEL_HEADER).astype(np.int64))


def resize(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Scales uint8 RGB (N, h, w, 3) to (N, side, side, 3) as Pillow's bilinear filter does."""
    size = (side, side)
    scaled = [Image.fromarray(image).resize(size, Image.Resampling.BILINEAR) for image in images]
    return np.stack([np.asarray(image) for image in scaled])


def augment(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Mirrors half of the images and shifts each by up to `CROP_PADDING` pixels; shape is kept."""
    count, side = images.shape[:2]
    padding = ((0, 0), (CROP_PADDING, CROP_PADDING), (CROP_PADDING, CROP_PADDING), (0, 0))
    padded = np.pad(images, padding)
    offsets = rng.integers(0, 2 * CROP_PADDING, (count, 2), endpoint=True)
    mirrors = rng.choice([-1, 1], count)
    return np.stack(
        [
            image[top : top + side, left : left + side][:, ::mirror]
            for image, (top, left), mirror in zip(padded, offsets, mirrors, strict=True)
        ]
    )


def to_input(images: NDArray[np.uint8]) -> torch.Tensor:
    """Turns uint8 RGB (N, S, S, 3) into the float32 BGR (N, 3, S, S) that pycls' networks see.

    The result is a channels-last view, which trains 1.8 times as fast on a CPU.
    """
    bgr = torch.from_numpy(images[..., ::-1].copy()).float() / 255
    return ((bgr - BGR_MEAN) / BGR_STD).permute(0, 3, 1, 2)


def train(split: Split) -> None:
    """Trains on images of TRAIN.IM_SIZE and replaces the committed checkpoint with the result."""
    torch.manual_seed(cfg.RNG_SEED)
    rng = np.random.default_rng(cfg.RNG_SEED)
    model = builders.build_model().train()
    loss_fun = builders.build_loss_fun()
    sgd = optimizer.construct_optimizer(model)
    size = cfg.TRAIN.BATCH_SIZE
    for epoch in range(cfg.OPTIM.MAX_EPOCH):
        start, total = time.monotonic(), 0.0
        optimizer.set_lr(sgd, optimizer.get_epoch_lr(epoch))
        order = rng.permutation(len(split.labels))
        batches = order[: len(order) // size * size].reshape(-1, size)  # drops the last, as pycls
        for batch in batches:
            logits = model(to_input(augment(split.images[batch], rng)))
            loss = loss_fun(logits, torch.from_numpy(split.labels[batch]))
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            total += loss.item()
        seconds = time.monotonic() - start
        sys.stderr.write(f"epoch {epoch + 1}: loss {total / len(batches):.4f}, {seconds:.0f} s\n")
    save(model, sgd)


def save(model: torch.nn.Module, sgd: torch.optim.Optimizer) -> None:
    """Lets pycls write its last epoch and moves the file to `CHECKPOINT`.

    pycls calls `torch.save` with its defaults, which wrote a stream without a zip container until
    PyTorch 1.6; the published files of 2020 are such streams, so this one is made one too.
    """
    legacy_save = functools.partial(torch.save, _use_new_zipfile_serialization=False)
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        mock.patch.object(torch, "save", legacy_save),
    ):
        written = checkpoint.save_checkpoint(model, sgd, cfg.OPTIM.MAX_EPOCH - 1)
        shutil.move(written, CHECKPOINT)


def save_samples(test: Split) -> None:
    """Writes the first `SAMPLES_PER_CLASS` test images of each class, 28 x 28, tinted, as NPZ."""
    classes = range(cfg.MODEL.NUM_CLASSES)
    firsts = [np.flatnonzero(test.labels == label)[:SAMPLES_PER_CLASS] for label in classes]
    indices = np.concatenate(firsts)
    np.savez_compressed(
        SAMPLES, images=test.images[indices], labels=test.labels[indices], indices=indices
    )


@torch.inference_mode()
def accuracy(model: torch.nn.Module, split: Split, *, reverse_channels: bool = False) -> float:
    """Measures top-1 accuracy in percent on images of any size, in one pass without crops.

    Args:
        model: A pycls network in evaluation mode.
        split: The images, resized here to TEST.IM_SIZE.
        reverse_channels: Feeds RGB instead of BGR, the mistake that the tint makes visible.
    """
    right = 0
    for start in range(0, len(split.labels), cfg.TEST.BATCH_SIZE):
        batch = slice(start, start + cfg.TEST.BATCH_SIZE)
        inputs = to_input(resize(split.images[batch], cfg.TEST.IM_SIZE))
        logits = model(inputs.flip(1) if reverse_channels else inputs)
        right += int((logits.argmax(1).numpy() == split.labels[batch]).sum())
    return 100 * right / len(split.labels)


def evaluate(test: Split) -> None:
    """Prints the accuracy of the committed checkpoint in the real pycls network."""
    model = builders.build_model().eval()
    # The scheduled learning rate is a NumPy scalar, which torch.load must be allowed to rebuild.
    with torch.serialization.safe_globals([scalar, np.dtype, np.dtypes.Float64DType]):
        checkpoint.load_checkpoint(CHECKPOINT, model)
    with np.load(SAMPLES) as arrays:
        samples = Split(arrays["images"], arrays["labels"])
    for name, split, reverse in (
        ("test images", test, False),
        ("test images, channels reversed", test, True),
        ("samples", samples, False),
    ):
        percent = accuracy(model, split, reverse_channels=reverse)
        sys.stdout.write(f"{len(split.labels):6,} {name}: {percent:.2f} %\n")


def main() -> None:
    """Trains, then evaluates; with `--evaluate`, only evaluates the committed checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evaluate", action="store_true", help="evaluate the committed checkpoint")
    parser.add_argument(
        "--dataset", type=Path, default=DATASET, help="folder of the four .gz files"
    )
    options = parser.parse_args()
    if not options.dataset.is_dir():
        parser.error(
            f"no folder {options.dataset}; name one with the four .gz files of Fashion-MNIST"
        )
    cfg.merge_from_file(str(CONFIG))
    torch.set_num_threads(2)
    test = load_split(options.dataset, "t10k")
    if not options.evaluate:
        full = load_split(options.dataset, "train")
        train(Split(resize(full.images, cfg.TRAIN.IM_SIZE), full.labels))
        save_samples(test)
    evaluate(test)


if __name__ == "__main__":
    main()
