"""Train a small CNN on the 1,797 handwritten digits that ship inside scikit-learn.

Nothing here says which array library it runs on: ``--device`` does, and ``auto`` takes a CUDA
GPU if there is one that works.

    python examples/train_digits.py [--device auto] [--precision float16] [--epochs 12]
        [--out runs/digits] [--resume]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import devconv as dc
from devconv import plots
from devconv.functional import cross_entropy

RUN = "run.safetensors"
"""What a stopped run continues from."""


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images (1797, 1, 8, 8) from 0 to 1, and labels."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        sys.exit('the digits come with scikit-learn; install it: pip install "devconv[train]"')
    images, labels = load_digits(return_X_y=True)
    return (images / 16.0).astype("float32").reshape(-1, 1, 8, 8), labels


def split(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """A fifth held out for the test, the same examples for every seed and device."""
    order = np.random.default_rng(2024).permutation(len(images))
    held_out = len(images) // 5
    test, train = order[:held_out], order[held_out:]
    return images[train], labels[train], images[test], labels[test]


def network() -> dc.Sequential:
    """Two convolutions, two dense layers."""
    return dc.Sequential(
        dc.Conv2d(1, 32, 3, padding="same", activation="relu"),
        dc.Conv2d(32, 64, 3, padding="same", activation="relu"),
        dc.MaxPool2d(2),
        dc.Conv2d(64, 64, 3, padding="same", activation="relu"),
        dc.MaxPool2d(2),
        dc.Flatten(),
        dc.Dense(None, 64, activation="relu"),
        dc.Dense(64, 10),
    )


def shifted(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The images and the same moved by one pixel each way: five times as many examples."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    moves = [(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)]
    return np.concatenate([padded[:, :, a : a + 8, b : b + 8] for a, b in moves]), np.tile(
        labels, len(moves)
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a small CNN on handwritten digits.")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, torch, jax, ...")
    parser.add_argument("--precision", default="float32", help="float32, tf32, float16, bfloat16")
    parser.add_argument("--epochs", type=int, default=12, help="how many in all (12)")
    parser.add_argument("--seed", type=int, default=0, help="of parameters and order (0)")
    parser.add_argument("--out", type=Path, default=Path("runs/digits"), help="folder of results")
    parser.add_argument("--resume", action="store_true", help="continue a run that was stopped")
    given = parser.parse_args()
    if given.epochs < 1:
        parser.error(f"--epochs must be at least 1, got {given.epochs}")
    if given.resume and not (given.out / RUN).exists():
        parser.error(f"--resume: there is no run in {given.out}; start one without --resume")
    return given


def train(
    trainer: dc.Trainer,
    batches: dc.data.Batches,
    validation: dc.data.Batches,
    given: argparse.Namespace,
) -> None:
    """Epoch by epoch, smaller steps in the last third; the run is kept after each."""
    while trainer.epoch < given.epochs:
        trainer.optimizer.lr = 1e-3 if trainer.epoch < given.epochs * 2 / 3 else 1e-4
        trainer.fit(batches, epochs=1, validation=validation, save_to=given.out / RUN)
        trainer.history.save(given.out / "history.jsonl")
        row = trainer.history[-1]
        print(
            f"epoch {row['epoch']:2d}: loss {row['loss']:.4f}, accuracy {row['accuracy']:.4f}, "
            f"held-out accuracy {row['validation_accuracy']:.4f}, "
            f"{row['images_per_second']:.0f} images/s",
            flush=True,
        )


def main() -> None:
    given = arguments()
    try:
        device = dc.device(given.device)
    except dc.DevconvError as error:
        sys.exit(str(error))
    print(f"device: {device} ({device.reason})")

    images, labels, test_images, test_labels = split(*digits())
    model = network().build(images.shape[1:], seed=given.seed).to(device)
    before = dc.to_numpy(model.parameters["0.weight"])
    optimizer = dc.optim.AdamW(model, lr=1e-3, weight_decay=0.01)
    try:
        trainer = dc.Trainer(model, cross_entropy, optimizer, precision=given.precision)
    except dc.DevconvError as error:
        sys.exit(str(error))

    if given.resume:
        trainer.resume(given.out / RUN)
        print(f"resumed after epoch {trainer.epoch}")
    batches = dc.data.Batches(*shifted(images, labels), batch_size=64, seed=given.seed)
    validation = dc.data.Batches(test_images, test_labels, batch_size=512, shuffle=False)
    try:
        train(trainer, batches, validation, given)
    except KeyboardInterrupt:
        print("stopped; --resume continues after the last complete epoch")
        sys.exit(130)
    dc.save(model, given.out / "model.safetensors")
    plots.training_curves(trainer.history, given.out / "training.png")
    plots.filters(
        {"before": before, "after": model.parameters["0.weight"]}, given.out / "filters.png"
    )
    print(f"wrote model, history and pictures to {given.out}")
    print(f"test accuracy {trainer.evaluate(validation)['accuracy']:.4f} on {device}")


if __name__ == "__main__":
    main()
