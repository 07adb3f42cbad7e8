"""A block of products: a few rows of one matrix times a few columns of another, in registers.

``c[p, j] = start[p, j] + sum over i of a[p, i] · b[i, j]`` for a handful of rows ``p`` and one or
two vectors of columns ``j``. Every map of a convolution is a walk of this block over memory:
the sum runs over *runs*, stretches of equal length with an address of their own in ``a`` and
``b``, and all steps between numbers are given in bytes. A window of an image is such a sum
over runs, and so is everything one weight has met. Nothing is gathered into a matrix first.

The block is written in LLVM's vector types, so that its sums stay in registers whatever the
optimizer thinks of loops; after K. Goto and R. van de Geijn, "Anatomy of high-performance
matrix multiplication", ACM TOMS 34 (2008), and E. Georganas et al., "Anatomy of
high-performance deep learning convolutions on SIMD architectures", arXiv:1808.05567.
"""

from __future__ import annotations

import itertools
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


def _has_wide_vectors() -> bool:
    """Whether the processor has AVX-512; a processor that LLVM cannot ask has not."""
    try:
        return bool(llvm.get_host_cpu_features().get("avx512f"))
    except RuntimeError:
        return False


_WIDE = _has_wide_vectors()
VECTOR_BYTES = 64 if _WIDE else 32
VECTORS = 2
ROWS = 14 if _WIDE else 6
"""Sums held at once: with two vectors, 28 of 32 registers, or 12 of 16."""

INT = ir.IntType(64)
SHORT = ir.IntType(32)
_ARGUMENTS = (
    *("kind", "a", "a_row", "a_step", "a_runs", "b", "b_step", "b_runs", "runs", "length"),
    *("c", "c_row", "start", "start_row", "columns", "masks"),
)

PRODUCT, MASKED, CHANNELS = range(3)
"""Kinds of block: each number of ``a`` times each column; the same, where a number counts for
some of the columns alone; each column of ``a`` times the same column of ``b``."""


@intrinsic
def multiply_block(
    typing, zero, rows, kind, a, a_row, a_step, a_runs, b, b_step, b_runs, runs, length,
    c, c_row, start, start_row, columns, masks,
):  # fmt: skip
    """Multiply one block of ``rows`` (1 to ``ROWS``) by ``columns`` (1 to two vectors' worth).

    Args:
        typing: Numba's own.
        zero: a number of the dtype.
        rows: rows of ``a`` and ``c``.
        kind: ``PRODUCT``, ``MASKED`` or ``CHANNELS``.
        a: address of the first row; ``a_row`` bytes on lies the next.
        a_row: see ``a``.
        a_step: bytes from one number of a run to the next.
        a_runs: address of the runs' offsets in ``a``, in bytes, one int64 each.
        b: address of the first row of columns; columns lie side by side.
        b_step: bytes from one row of ``b`` to the next.
        b_runs: address of the runs' offsets in ``b``.
        runs: how many runs there are.
        length: how many numbers a run has.
        c: address of the result; ``c_row`` bytes from row to row.
        c_row: see ``c``.
        start: address of what the sums start from, ``start_row`` bytes from row to row.
        start_row: see ``start``.
        columns: how many columns there are.
        masks: if ``MASKED``, address of an int64 for each number of each run, in order: where
            its bit ``j`` is not set, column ``j`` leaves that number out (a zero in ``b``
            would let NaN through).
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        real = context.get_value_type(signature.args[0])
        size = context.get_abi_sizeof(real)
        lanes = VECTOR_BYTES // size
        given = dict(zip(_ARGUMENTS, args[2:], strict=True))
        vectors = builder.udiv(builder.add(given["columns"], INT(lanes - 1)), INT(lanes))
        case = builder.add(builder.mul(args[1], INT(4)), vectors)
        case = builder.add(builder.mul(case, INT(4)), given["kind"])
        done = builder.append_basic_block("done")
        switch = builder.switch(case, done)
        for r, v, kind in itertools.product(range(1, ROWS + 1), range(1, VECTORS + 1), range(3)):
            start = builder.append_basic_block("case")
            switch.add_case(INT((r * 4 + v) * 4 + kind), start)
            builder.position_at_end(start)
            _Block(builder, real, size, r, v, kind, given).generate()
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(zero, *[types.int64] * (1 + len(_ARGUMENTS))), generate


class _Block:
    """The code of one block with ``rows · vectors`` sums."""

    def __init__(
        self,
        builder: ir.IRBuilder,
        real: Any,
        size: int,
        rows: int,
        vectors: int,
        kind: int,
        given: dict[str, Any],
    ) -> None:
        self.builder, self.real, self.size = builder, real, size
        self.rows, self.vectors, self.given = range(rows), range(vectors), given
        self.kind = kind
        self.lanes = VECTOR_BYTES // size
        self.vector = ir.VectorType(real, self.lanes)
        used = builder.sub(given["columns"], INT((vectors - 1) * self.lanes))
        numbers = ir.VectorType(SHORT, self.lanes)
        self.mask = builder.icmp_signed(
            "<",
            ir.Constant(numbers, list(range(self.lanes))),
            self._splat(builder.trunc(used, SHORT), numbers),
        )

    def generate(self) -> None:
        """Load the sums, run through the runs, store the sums."""
        builder, given = self.builder, self.given
        sums = [
            [cgutils.alloca_once(builder, self.vector) for _ in self.vectors] for _ in self.rows
        ]
        for p in self.rows:
            for v in self.vectors:
                start = self._load(self._at("start", "start_row", p), v)
                builder.store(start, sums[p][v])
        with cgutils.for_range(builder, given["runs"], intp=INT) as run:
            a = builder.add(given["a"], self._entry("a_runs", run.index))
            b = builder.add(given["b"], self._entry("b_runs", run.index))
            with cgutils.for_range(builder, given["length"], intp=INT) as step:
                row = builder.add(b, builder.mul(step.index, given["b_step"]))
                columns = [self._load(row, v) for v in self.vectors]
                counts = self._counts(run.index, step.index)
                first = builder.add(a, builder.mul(step.index, given["a_step"]))
                for p in self.rows:
                    if p and p % 3 == 0:  # base, base + row, base + 2 row: few address registers
                        first = builder.add(first, builder.mul(given["a_row"], INT(3)))
                    place = builder.add(first, builder.mul(given["a_row"], INT(p % 3)))
                    for v, factor in zip(self.vectors, self._factors(place), strict=True):
                        self._add_product(sums[p][v], factor, columns[v], counts[v])
        for p in self.rows:
            for v in self.vectors:
                self._store(builder.load(sums[p][v]), self._at("c", "c_row", p), v)

    def _factors(self, place: Any) -> list[Any]:
        """What the vectors of a row are multiplied with: one number, or one for each column."""
        if self.kind == CHANNELS:
            return [self._load(place, v) for v in self.vectors]
        number = self.builder.load(self._pointer(place, self.real))
        return [self._splat(number, self.vector)] * len(self.vectors)

    def _counts(self, run: Any, step: Any) -> list[Any]:
        """For each vector the lanes that this number counts for, or ``None`` for all."""
        if self.kind != MASKED:
            return [None for _ in self.vectors]
        builder = self.builder
        index = builder.add(builder.mul(run, self.given["length"]), step)
        place = builder.add(self.given["masks"], builder.mul(index, INT(8)))
        bits = builder.load(self._pointer(place, INT))
        lanes = ir.IntType(self.lanes)
        words = (
            builder.trunc(builder.lshr(bits, INT(v * self.lanes)), lanes) for v in self.vectors
        )
        return [builder.bitcast(word, self.mask.type) for word in words]

    def _add_product(self, place: Any, one: Any, other: Any, counts: Any) -> None:
        builder, fused = self.builder, ("contract",)
        before = builder.load(place)
        total = builder.fadd(before, builder.fmul(one, other, flags=fused), flags=fused)
        builder.store(total if counts is None else builder.select(counts, total, before), place)

    def _at(self, base: str, row: str, p: int) -> Any:
        return self.builder.add(self.given[base], self.builder.mul(self.given[row], INT(p)))

    def _entry(self, table: str, index: Any) -> Any:
        place = self.builder.add(self.given[table], self.builder.mul(index, INT(8)))
        return self.builder.load(self._pointer(place, INT))

    def _pointer(self, address: Any, kind: Any) -> Any:
        return self.builder.inttoptr(address, ir.PointerType(kind))

    def _splat(self, scalar: Any, vector: Any) -> Any:
        nothing = ir.Constant(vector, ir.Undefined)
        one = self.builder.insert_element(nothing, scalar, SHORT(0))
        lanes = ir.Constant(ir.VectorType(SHORT, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(one, nothing, lanes)

    def _load(self, address: Any, v: int) -> Any:
        """Vector ``v`` of a row; of the last one only the columns there are."""
        place = self._pointer(self.builder.add(address, INT(v * VECTOR_BYTES)), self.vector)
        if v < self.vectors[-1]:
            loaded = self.builder.load(place)
            loaded.align = self.size
            return loaded
        zeros = ir.Constant(self.vector, [0.0] * self.lanes)
        return self._masked("load", self.vector, [place, SHORT(self.size), self.mask, zeros])

    def _store(self, value: Any, address: Any, v: int) -> None:
        place = self._pointer(self.builder.add(address, INT(v * VECTOR_BYTES)), self.vector)
        if v < self.vectors[-1]:
            self.builder.store(value, place).align = self.size
        else:
            self._masked("store", ir.VoidType(), [value, place, SHORT(self.size), self.mask])

    def _masked(self, verb: str, result: Any, args: list[Any]) -> Any:
        name = f"llvm.masked.{verb}.v{self.lanes}f{8 * self.size}.p0"
        kind = ir.FunctionType(result, [arg.type for arg in args])
        return self.builder.call(
            cgutils.get_or_insert_function(self.builder.module, kind, name), args
        )


@intrinsic
def peek(typing, zero, address):
    """The number at an address."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        real = context.get_value_type(signature.args[0])
        return builder.load(builder.inttoptr(args[1], ir.PointerType(real)))

    return zero(zero, types.int64), generate


@intrinsic
def poke(typing, address, value):
    """Write a number to an address."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        builder.store(args[1], builder.inttoptr(args[0], ir.PointerType(args[1].type)))
        return context.get_dummy_value()

    return types.void(types.int64, value), generate


@intrinsic
def copy_bytes(typing, target, source, count):
    """Copy ``count`` bytes from one address to another."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        target, source = (builder.inttoptr(a, ir.PointerType(ir.IntType(8))) for a in args[:2])
        cgutils.raw_memcpy(builder, target, source, args[2], INT(1))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@intrinsic
def clear_bytes(typing, target, count):
    """Write ``count`` zero bytes from an address on."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        target = builder.inttoptr(args[0], ir.PointerType(ir.IntType(8)))
        cgutils.memset(builder, target, args[1], 0)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def pointer(typing, zero, address):
    """An address as a pointer to numbers like ``zero``."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[1], context.get_value_type(signature.return_type))

    return types.CPointer(zero)(zero, types.int64), generate
