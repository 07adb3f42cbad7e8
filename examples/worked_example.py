"""How can a filter have a gradient? One step by hand, on every array library installed here.

A 3x3 image, a 2x2 filter, a target: the filter's gradient three ways that agree, the step
against it, and on until the loss is gone. The numbers are those of an example that is
passed around in this form; its published gradient sums two of the four output positions
and is wrong, as each run shows.

    python examples/worked_example.py [--device numpy]
"""

from __future__ import annotations

import argparse
import itertools
import sys
from contextlib import nullcontext
from decimal import ROUND_HALF_UP, Decimal

import numpy as np

import devconv as dc
from devconv.functional import conv, mse_loss

IMAGE = [[1.0, 2.0, 1.0], [0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]
FILTER = [[0.5, 0.2], [0.3, 0.7]]
TARGET = [[1.0, 2.0], [2.0, 1.0]]
RATE = 0.1
PUBLISHED_GRADIENT = [[0.3, 0.35], [-0.5, 0.05]]
PUBLISHED_FILTER = [[0.47, 0.165], [0.35, 0.695]]
BACKENDS = ("numpy", "cupy", "torch", "jax", "array_api_strict")


def text(x: object, digits: int = 6) -> str:
    """A small array on one line."""
    host = dc.to_numpy(x).squeeze().astype("float64")
    return str((host.round(digits) + 0.0).tolist())


def six(value: float) -> str:
    """Six digits after the point, halves rounded up as on paper."""
    return str(Decimal(f"{value:.8f}").quantize(Decimal("1e-6"), ROUND_HALF_UP))


def loss_of(x, kernel, target):
    """The loss as a function of the filter: what is differentiated below."""
    return float(mse_loss(conv(x, kernel), target))


def summed_by_hand(image: np.ndarray, error: np.ndarray) -> np.ndarray:
    """dL/dW[k, m] = sum over all four positions of 2/4 · error[i, j] · image[i + k, j + m]."""
    gradient = np.zeros((2, 2))
    for k, m, i, j in itertools.product(range(2), repeat=4):
        gradient[k, m] += 2 / 4 * error[i, j] * image[i + k, j + m]
    return gradient


def nudged(x, kernel, target, device: dc.Device, amount: float = 1e-5) -> np.ndarray:
    """Change one weight a little and look at the loss: a central difference for each."""
    gradient, start = np.zeros((2, 2)), dc.to_numpy(kernel)
    for k, m in itertools.product(range(2), repeat=2):
        step = np.zeros_like(start)
        step[0, 0, k, m] = amount
        up, down = (device.asarray(start + sign * step) for sign in (1.0, -1.0))
        gradient[k, m] = (loss_of(x, up, target) - loss_of(x, down, target)) / (2 * amount)
    return gradient


def work_through(device: dc.Device) -> None:
    """Print each step on one device."""
    dtype = "float64" if device.has_dtype("float64") else "float32"

    def array(values):
        return device.asarray(np.asarray(values, dtype=dtype)[None, None])

    x, kernel, target = array(IMAGE), array(FILTER), array(TARGET)
    print(f"\n== {device}, {dtype}")

    # The forward pass evaluates f(k, x) and keeps the way back to both.
    y, back_through_conv = conv.vjp(x, kernel)
    loss, back_through_loss = mse_loss.vjp(y, target)
    print(f"filter               {text(kernel)}")
    print(f"output               {text(y)}")
    print(f"loss                 {six(float(loss))}")

    # The backward pass sends a dual vector through them: first the loss, then the filter.
    dy, _ = back_through_loss(device.xp.ones_like(loss))
    dx, gradient = back_through_conv(dy)
    by_hand = summed_by_hand(np.asarray(IMAGE), dc.to_numpy(y - target)[0, 0])
    by_nudging = nudged(x, kernel, target, device, 1e-5 if dtype == "float64" else 1e-2)
    print(f"dL/dy                {text(dy)}")
    print(f"dL/dW, sum by hand   {by_hand.round(6).tolist()}")
    print(f"dL/dW, pullback      {text(gradient)}")
    print(f"dL/dW, nudged        {by_nudging.round(4).tolist()}")
    print(f"dL/dx, for a layer before: {text(dx)}")

    kernel = kernel - RATE * gradient
    print(f"step of {RATE}: filter  {text(kernel)}")
    print(f"loss                 {six(loss_of(x, kernel, target))}")
    published = loss_of(x, array(PUBLISHED_FILTER), target)
    print(f"published gradient   {PUBLISHED_GRADIENT}: wrong, its sums leave out the two")
    print("                     positions on the right, y[0, 1] and y[1, 1], where the image")
    print(f"                     meets the filter too; its filter {PUBLISHED_FILTER}")
    print(f"                     only gets to loss {six(published)}")

    steps = 1
    while (value := loss_of(x, kernel, target)) >= 1e-6:
        y, back_through_conv = conv.vjp(x, kernel)
        loss, back_through_loss = mse_loss.vjp(y, target)
        _, gradient = back_through_conv(back_through_loss(device.xp.ones_like(loss))[0])
        kernel, steps = kernel - RATE * gradient, steps + 1
    print(f"going on, after {steps} steps: filter {text(kernel, 4)}, loss {value:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description="A filter's gradient, worked out by hand.")
    parser.add_argument("--device", help="only this one (all that are installed)")
    given = parser.parse_args()
    for spec in [given.device] if given.device else BACKENDS:
        try:
            device = dc.device(spec)
        except dc.DevconvError as error:
            if given.device:
                sys.exit(str(error))
            print(f"\n== {spec}: left out, {error}")
            continue
        # CuPy's own lines, such as y - target, run on its current GPU; operations on their arrays'.
        with device.native if device.library == "cupy" else nullcontext():
            work_through(device)


if __name__ == "__main__":
    main()
