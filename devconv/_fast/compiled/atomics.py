"""Integers in memory that several threads read and write at once."""

from __future__ import annotations

import os
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from devconv._fast.compiled.block import INT, SHORT


@intrinsic
def exchange(typing, address, known, new):
    """Whether the int64 at an address was the one known; then it is the new one now."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        place = builder.inttoptr(args[0], ir.PointerType(INT))
        done = builder.cmpxchg(place, args[1], args[2], "acq_rel", "acquire")
        return builder.extract_value(done, 1)

    return types.boolean(types.int64, types.int64, types.int64), generate


@intrinsic
def look(typing, address):
    """The int64 at an address as it is now, whoever writes to it."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        place = builder.inttoptr(args[0], ir.PointerType(INT))
        return builder.load_atomic(place, "acquire", 8)

    return types.int64(types.int64), generate


@intrinsic
def tell(typing, address, value):
    """Write an int64 to an address, for others to see with all that was written before."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        place = builder.inttoptr(args[0], ir.PointerType(INT))
        builder.store_atomic(args[1], place, "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def count_one(typing, address):
    """Add one to the int64 at an address, whoever else does."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        place = builder.inttoptr(args[0], ir.PointerType(INT))
        builder.atomic_rmw("add", place, INT(1), "acq_rel")
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def pause(typing):
    """Let the processor rest for a moment."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [])
        name = "llvm.x86.sse2.pause"
        builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def yield_core(typing):
    """Let another thread have this core, if one waits for it."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        if os.name == "posix":
            kind = ir.FunctionType(SHORT, [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), generate
