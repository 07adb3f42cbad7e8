"""Long sums of arrays, vector by vector, written past the caches where nobody reads them soon.

An ordinary store first reads the line of memory that it changes. For new parameters, which are
read again a whole step later, that reading is a quarter of all there is.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from devconv._fast.compiled.block import INT, SHORT, VECTOR_BYTES
from devconv._fast.compiled.native import Task, numbers

LINE = VECTOR_BYTES
"""Bytes to which results must be aligned."""


@intrinsic
def _blend_vectors(typing, zero, count, is_long, x, y, z, inner, outer, a, b, c):
    """``inner = a · x + b · y`` and ``outer = z + c · inner`` for so many vectors."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        real = context.get_value_type(signature.args[0])
        lanes = VECTOR_BYTES // context.get_abi_sizeof(real)
        vector, size = ir.VectorType(real, lanes), VECTOR_BYTES // lanes
        _, count, is_long, *places, a, b, c = args
        fused, past = ("contract",), builder.module.add_metadata([SHORT(1)])

        def splat(scalar: Any) -> Any:
            nothing = ir.Constant(vector, ir.Undefined)
            one = builder.insert_element(nothing, scalar, SHORT(0))
            lane = ir.Constant(ir.VectorType(SHORT, lanes), [0] * lanes)
            return builder.shuffle_vector(one, nothing, lane)

        def loop(streamed: bool) -> None:
            with cgutils.for_range(builder, count, intp=INT) as step:
                shift = builder.mul(step.index, INT(VECTOR_BYTES))
                x, y, z, inner, outer = (
                    builder.inttoptr(builder.add(place, shift), ir.PointerType(vector))
                    for place in places
                )
                read = [builder.load(place, align=size) for place in (x, y, z)]
                first = builder.fmul(factors[0], read[0], flags=fused)
                other = builder.fmul(factors[1], read[1], flags=fused)
                first = builder.fadd(first, other, flags=fused)
                other = builder.fmul(factors[2], first, flags=fused)
                for place, value in (
                    (inner, first), (outer, builder.fadd(read[2], other, flags=fused)),
                ):  # fmt: skip
                    store = builder.store(value, place, align=LINE if streamed else size)
                    if streamed:
                        store.set_metadata("nontemporal", past)

        factors = [splat(factor) for factor in (a, b, c)]
        with builder.if_else(builder.icmp_signed("!=", is_long, INT(0))) as (then, otherwise):
            with then:
                loop(True)
            with otherwise:
                loop(False)
        return context.get_dummy_value()

    return types.void(zero, *[types.int64] * 7, *[zero] * 3), generate


@Task
def blend_twice(
    zero, who, lo, hi, room, size, is_long, factors, x, y, z, inner, outer, itemsize
):  # fmt: skip
    """``inner = a · x + b · y`` and ``outer = z + c · inner``, for lines ``lo`` to ``hi``.

    Args:
        zero: a number of the dtype.
        who: which worker this is.
        lo: the first line of ``LINE`` bytes.
        hi: the line after the last.
        room: memory of its own.
        size: how many numbers the arrays have.
        is_long: whether results are written past the caches; they must be aligned then.
        factors: address of ``a``, ``b`` and ``c``.
        x: address of an array, as are ``y``, ``z`` and the results.
        y: see ``x``.
        z: see ``x``.
        inner: see ``x``.
        outer: see ``x``.
        itemsize: bytes of a number.
    """
    a, b, c = numbers(zero, factors, 3)
    lanes, shift = LINE // itemsize, lo * LINE
    whole = max(0, min(hi, size // lanes) - lo)
    _blend_vectors(
        zero, whole, is_long, x + shift, y + shift, z + shift, inner + shift, outer + shift,
        a, b, c,
    )  # fmt: skip
    x, y, z = numbers(zero, x, size), numbers(zero, y, size), numbers(zero, z, size)
    inner, outer = numbers(zero, inner, size), numbers(zero, outer, size)
    for i in range((lo + whole) * lanes, min(hi * lanes, size)):
        inner[i] = a * x[i] + b * y[i]
        outer[i] = z[i] + c * inner[i]
