"""A small matrix applied along both axes of a tile, all channels side by side: ``M d Mᵀ``.

This is how Winograd's convolution goes over to its points and back. The matrix is known when
the code is written: what is 0 is left out, what is 1 is not multiplied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from devconv._fast.compiled.block import INT, SHORT, VECTOR_BYTES

Matrix = tuple[tuple[float, ...], ...]


def sandwich(matrix: Matrix) -> Any:
    """A compiled ``target = M · source · Mᵀ + start`` for tiles of vectors.

    Of ``source``, entry ``(k, l)`` lies ``k`` times ``source_row`` and ``l`` times
    ``source_column`` bytes from its address, ``count`` channels side by side; likewise
    ``target``. ``start`` is the address of a number for each channel.
    """

    @intrinsic
    def apply(  # type: ignore[no-untyped-def]
        typing, zero, source, source_row, source_column, target, target_row, target_column,
        start, count,
    ):  # fmt: skip
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            real = context.get_value_type(signature.args[0])
            _Tile(builder, real, context.get_abi_sizeof(real), matrix).generate(*args[1:])
            return context.get_dummy_value()

        return types.void(zero, *[types.int64] * 8), generate

    return apply


class _Tile:
    """The code for one tile."""

    def __init__(self, builder: ir.IRBuilder, real: Any, size: int, matrix: Matrix) -> None:
        self.builder, self.size, self.matrix = builder, size, matrix
        self.lanes = VECTOR_BYTES // size
        self.vector = ir.VectorType(real, self.lanes)

    def generate(
        self, source: Any, s_row: Any, s_column: Any, target: Any, t_row: Any, t_column: Any,
        start: Any, count: Any,
    ) -> None:  # fmt: skip
        """Vector by vector; of the last one only the channels there are."""
        builder, side = self.builder, range(len(self.matrix[0]))
        vectors = builder.udiv(builder.add(count, INT(self.lanes - 1)), INT(self.lanes))
        with cgutils.for_range(builder, vectors, intp=INT) as loop:
            mask = self._mask(builder.sub(count, builder.mul(loop.index, INT(self.lanes))))
            shift = builder.mul(loop.index, INT(VECTOR_BYTES))
            source, target = builder.add(source, shift), builder.add(target, shift)
            first = self._masked("load", builder.add(start, shift), mask)
            half = []  # (M · source), column by column
            for column in side:
                place = builder.add(source, builder.mul(s_column, INT(column)))
                rows = (builder.add(place, builder.mul(s_row, INT(row))) for row in side)
                vectors_in = [self._masked("load", row, mask) for row in rows]
                half.append([self._combination(weights, vectors_in) for weights in self.matrix])
            for row in range(len(self.matrix)):
                place = builder.add(target, builder.mul(t_row, INT(row)))
                across = [column[row] for column in half]
                for column, weights in enumerate(self.matrix):
                    total = builder.fadd(self._combination(weights, across), first)
                    address = builder.add(place, builder.mul(t_column, INT(column)))
                    self._masked("store", address, mask, total)

    def _combination(self, weights: Sequence[float], vectors: Sequence[Any]) -> Any:
        """The sum of ``weight · vector``."""
        builder, total = self.builder, None
        for weight, vector in zip(weights, vectors, strict=True):
            if weight == 0:
                continue
            if abs(weight) != 1:
                factor = ir.Constant(self.vector, [abs(weight)] * self.lanes)
                vector = builder.fmul(vector, factor, flags=("contract",))
            if total is None:
                total = vector if weight > 0 else builder.fneg(vector)
            elif weight > 0:
                total = builder.fadd(total, vector, flags=("contract",))
            else:
                total = builder.fsub(total, vector, flags=("contract",))
        return total

    def _mask(self, count: Any) -> Any:
        builder, numbers = self.builder, ir.VectorType(SHORT, self.lanes)
        nothing = ir.Constant(numbers, ir.Undefined)
        one = builder.insert_element(nothing, builder.trunc(count, SHORT), SHORT(0))
        zeros = ir.Constant(numbers, [0] * self.lanes)
        counts = builder.shuffle_vector(one, nothing, zeros)
        return builder.icmp_signed("<", ir.Constant(numbers, list(range(self.lanes))), counts)

    def _masked(self, verb: str, address: Any, mask: Any, value: Any = None) -> Any:
        place = self.builder.inttoptr(address, ir.PointerType(self.vector))
        zeros = ir.Constant(self.vector, [0.0] * self.lanes)
        if verb == "load":
            result, args = self.vector, [place, SHORT(self.size), mask, zeros]
        else:
            result, args = ir.VoidType(), [value, place, SHORT(self.size), mask]
        kind = ir.FunctionType(result, [arg.type for arg in args])
        name = f"llvm.masked.{verb}.v{self.lanes}f{8 * self.size}.p0"
        module = self.builder.module
        return self.builder.call(cgutils.get_or_insert_function(module, kind, name), args)
