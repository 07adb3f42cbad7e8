"""A package of somebody else's that uses devconv inside, on its own users' arrays.

Its users never hear of devconv: they hand in a NumPy, CuPy, PyTorch or JAX array and get the
same kind back, on the same device. Two functions: an edge detector (operations alone) and a
denoiser that learns (one layer). Both are shown on every library installed here, from two
threads at once.

    python examples/as_a_library.py
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import devconv as dc
from devconv import functional as F


def edges(images):
    """The strength of edges: Sobel's two filters, and the length of the pair.

    ``images`` (N, 1, H, W) of any library; returns the same kind, same shape.
    """
    device = dc.device_of(images)
    across = np.asarray([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    bank = np.stack([across, across.T])[:, None]  # two filters over one channel
    weight = device.asarray(bank, dtype=images.dtype)
    both = F.conv(images, weight, padding="same")  # (N, 2, H, W)
    return (both[:, :1, ...] ** 2 + both[:, 1:, ...] ** 2) ** 0.5


class Denoiser:
    """A filter that learns to undo noise from pairs of images, wherever they are."""

    def __init__(self, size: int = 5) -> None:
        self.filter = dc.Conv2d(1, 1, size, padding="same", weight_init="zeros").build()

    def fit(self, noisy, clean, steps: int = 60) -> float:
        """Learn from pairs (N, 1, H, W); returns the mean squared error that is left."""
        self.filter.to(dc.device_of(noisy), dtype=noisy.dtype)
        optimizer = dc.optim.Adam(self.filter, lr=0.03)
        loss_and_grads = dc.value_and_grad(self.filter, F.mse_loss)
        for _ in range(steps):
            loss, grads = loss_and_grads(noisy, clean)
            optimizer.step(grads)
        return float(loss)

    def __call__(self, images):
        """Cleaner images, the same kind of array."""
        return self.filter(images)


def pictures(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth images (8, 1, 24, 24), with noise and without."""
    rng = np.random.default_rng(seed)
    axis = np.linspace(0, 3, 24)
    waves = [np.sin(axis[:, None] * a + b) * np.cos(axis * c) for a, b, c in rng.random((8, 3)) * 3]
    clean = np.asarray(waves, dtype="float32")[:, None]
    return clean + rng.normal(0, 0.3, clean.shape).astype("float32"), clean


def user(device: dc.Device, seed: int) -> str:
    """What a user of that package sees, in a thread of its own."""
    noisy, clean = (device.asarray(x) for x in pictures(seed))
    outline = edges(clean)
    denoiser = Denoiser()
    left = denoiser.fit(noisy, clean)
    cleaner = denoiser(noisy)
    assert type(outline) is type(cleaner) is type(noisy)
    start = float(F.mse_loss(noisy, clean))
    strongest = float(dc.to_numpy(outline).max())
    return (
        f"{threading.current_thread().name}: {type(cleaner).__module__.split('.')[0]} in and out, "
        f"strongest edge {strongest:.3f}, noise {start:.4f} -> {left:.4f}"
    )


def main() -> None:
    for spec in ("numpy", "cupy", "torch", "jax", "array_api_strict"):
        try:
            device = dc.device(spec)
        except dc.DevconvError as error:
            print(f"{spec}: left out, {error}")
            continue
        with ThreadPoolExecutor(2, thread_name_prefix="user") as threads:
            for line in threads.map(user, [device] * 2, [0, 1]):
                print(f"{device}: {line}")


if __name__ == "__main__":
    main()
