"""How functions become machine code: to be called from Python, or by a thread that never enters it.

A :class:`Task` is a function ``f(zero, who, lo, hi, room, ...)`` of numbers alone: a number of the
dtype, which worker it is, pieces ``lo`` to ``hi`` of the work, the address of memory of its own,
and whatever else it needs, as 64-bit integers and addresses. It is compiled for a dtype when that
is first asked for, and kept on disk where there is room.
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.extending import intrinsic

from devconv._fast.compiled.block import INT, pointer

FIXED = 4
"""The arguments before those that lie at an address: ``zero``, ``who``, ``lo`` and ``hi``."""
MOST = 24
"""The most arguments at an address."""

_HOW = {"error_model": "numpy", "boundscheck": False}

_compiling = threading.RLock()


def compiled(function: Callable[..., Any]) -> Any:
    """The function compiled when it is first called, and kept on disk where there is room."""
    try:
        return njit(cache=True, nogil=True, **_HOW)(function)
    except RuntimeError:  # Numba finds no folder that it may write to
        return njit(nogil=True, **_HOW)(function)


class Task:
    """A function that threads can run by address, for each dtype.

    Attributes:
        arity: how many arguments are read from an address, the room among them.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = function
        self.arity = len(inspect.signature(function).parameters) - FIXED
        assert 1 <= self.arity <= MOST, function
        self._compiled: dict[np.dtype, Any] = {}

    def entry(self, dtype: np.dtype) -> int:
        """Where the function compiled for a dtype begins."""
        found = self._compiled.get(dtype)
        if found is None:
            with _compiling:
                found = self._compiled.get(dtype) or self._compile(dtype)
                self._compiled[dtype] = found
        return int(found.address)

    def _compile(self, dtype: np.dtype) -> Any:
        real = types.float32 if dtype.itemsize == 4 else types.float64
        signature = types.void(real, *[types.int64] * (FIXED - 1 + self.arity))
        try:
            return cfunc(signature, cache=True, **_HOW)(self.function)
        except RuntimeError:  # Numba finds no folder that it may write to
            return cfunc(signature, **_HOW)(self.function)


@compiled
def integers(address, shape):
    """The int64 array at an address."""
    return carray(pointer(np.int64(0), address), shape)


@compiled
def numbers(zero, address, shape):
    """The array of the dtype at an address."""
    return carray(pointer(zero, address), shape)


@intrinsic
def call(typing, zero, entry, arity, who, lo, hi, room, arguments):
    """Call the task that begins at an address; the arguments after ``room`` lie at another."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        real = context.get_value_type(signature.args[0])
        zero, entry, arity, *fixed, arguments = args
        done = builder.append_basic_block("done")
        switch = builder.switch(arity, done)
        for count in range(1, MOST + 1):
            switch.add_case(INT(count), builder.append_basic_block("case"))
            builder.position_at_end(switch.cases[-1][1])
            table = builder.inttoptr(arguments, ir.PointerType(INT))
            rest = [builder.load(builder.gep(table, [INT(i)])) for i in range(count - 1)]
            kind = ir.FunctionType(ir.VoidType(), [real, *[INT] * (FIXED - 1 + count)])
            builder.call(builder.inttoptr(entry, kind.as_pointer()), [zero, *fixed, *rest])
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(zero, *[types.int64] * 7), generate


def _start_anew() -> None:
    """In a forked child, where whoever held the lock is not there to let it go."""
    global _compiling
    _compiling = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
