"""Loops compiled with Numba for NumPy arrays: the optional extra ``fast``.

:mod:`.block` multiplies one small block in registers. :mod:`.windows` walks it over the windows
of an image; :mod:`.sweep` plans the walk, :mod:`.bank` lays the kernel out for it and :mod:`.conv`
carries it out, for the three maps of a convolution; :mod:`.spread` leads back to images of few
channels, :mod:`.winograd` goes by way of points (:mod:`.sandwich`), :mod:`.product` multiplies
matrices. :mod:`.pool` goes over windows without products; :mod:`.passes` and :mod:`.stream` are
single readings of memory, for :mod:`.norm` and :mod:`.elementwise`.

All loops are tasks (:mod:`.native`), C functions of addresses that :mod:`.threads` share by way of
integers in memory (:mod:`.atomics`). Importing this room imports Numba, so it is entered when the
first array asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from devconv._fast.compiled import conv, elementwise, norm, pool, product, winograd

ROUTES: dict[str, Callable[..., Any]] = {
    "correlate": conv.correlate,
    "input_cotangent": conv.input_cotangent,
    "kernel_cotangent": conv.kernel_cotangent,
    "winograd_correlate": winograd.correlate,
    "winograd_input_cotangent": winograd.input_cotangent,
    "winograd_kernel_cotangent": winograd.kernel_cotangent,
    "multiply": product.multiply,
    "channel_norm": norm.channel_norm,
    "channel_sums": norm.channel_sums,
    "largest": pool.largest,
    "largest_back": pool.largest_back,
    "total": pool.total,
    "total_back": pool.total_back,
    "relu": elementwise.relu,
    "relu_back": elementwise.relu_back,
    "tanh_back": elementwise.tanh_back,
    "blend": elementwise.blend,
    "blend_twice": elementwise.blend_twice,
}
"""``primitive -> route`` for NumPy arrays."""
