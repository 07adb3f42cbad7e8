"""Random numbers from a key and a counter: the same bits on every backend.

A *key* is an int32 array of shape ``(2,)``. There is no generator that moves on: a draw is a
pure function of the key and the shape, so the same call gives the same numbers in any
library, on any device, eager or compiled. For new numbers make a new key: :func:`fold_in`
a step, or the path of a layer, or :func:`split` one into several.

Underneath is a block cipher that scrambles a counter, Threefry-2x32 with 20 rounds. It runs in
whichever integers of 32 bits a library can add and shift: an overflow wraps around, and where
they have a sign, a mask takes it out of a shift to the right.

>>> step = fold_in(key(0), 7)
>>> uniform(step, 3)
array([0.07066745, 0.45096815, 0.78790903], dtype=float32)
>>> uniform(step, 2)
array([0.07066745, 0.45096815], dtype=float32)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

from devconv import _array
from devconv._array import Array, Namespace
from devconv._check import InvalidType, InvalidValue, Shape, integer, number, show

__all__ = ["bernoulli", "bits", "fold_in", "key", "normal", "permutation", "split", "uniform"]

# J. Salmon, M. Moraes, R. Dror and D. Shaw, "Parallel random numbers: as easy as 1, 2, 3",
# SC'11; the rotations and the parity word of Random123's threefry2x32.
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_GROUPS = 5  # of four rounds each

# The counter's second word says what a block is for, so that no draw meets a derived key.
_DRAW, _NUMBER, _TEXT, _SPLIT = range(4)

_BLOCK = 2**15  # counters at a time on the host: what a core's cache holds
_DIGITS = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}  # bits of a uniform


def __dir__() -> list[str]:
    return list(__all__)


def key(seed: int, *, like: Array | None = None) -> Array:
    """Make a key of a seed.

    Args:
        seed: 0 to 2⁶⁴ - 1.
        like: an array; the key is made in its library and on its device. Without one it is
            a NumPy array, which operations take along to wherever their ``x`` is.

    Returns:
        An int32 array ``(2,)``, the upper and the lower half of the seed.

    Raises:
        ValueError: a seed out of range.
        TypeError: a seed that is no int.

    The words are those of ``jax.random.PRNGKey``.

    >>> key(7)
    array([0, 7], dtype=int32)
    """
    seed = integer("seed", seed, least=0)
    if seed >= 2**64:
        raise InvalidValue(f"seed must be less than 2**64, got {seed}")
    words = [_signed(seed >> 32), _signed(seed & 0xFFFFFFFF)]
    if like is None:
        return _array.host().asarray(words, dtype=_array.host().int32)
    xp = _array.array_namespace(like)
    with _array.on_device(like):
        return xp.asarray(words, dtype=xp.int32, device=_array.device(like))


def fold_in(key: Array, data: int | str) -> Array:
    """Make a new key of a key and a number, or a text such as a layer's path.

    Args:
        key: a key.
        data: 0 to 2³² - 1, or any text.

    Returns:
        A key for draws that have nothing to do with those of ``key`` itself or of another
        number or text (two texts have the same 32-bit hash, and key, once in 2³²).

    Raises:
        ValueError: a number out of range.
        TypeError: neither an int nor a text; no key.

    >>> fold_in(key(0), 1), fold_in(key(0), "features.1")
    (array([-1820994721,   935721516], dtype=int32), array([-496270457,  332371053], dtype=int32))
    """
    if isinstance(data, str):
        number = _remembered[data] if data in _remembered else _hashed(data)
        return _derived(key, [number], _TEXT)[0, :]
    data = integer("data", data, least=0)
    if data >= 2**32:
        raise InvalidValue(f"data must be less than 2**32, got {data}")
    return _derived(key, [data], _NUMBER)[0, :]


def split(key: Array, n: int = 2) -> tuple[Array, ...]:
    """Make ``n`` keys of one.

    Args:
        key: a key, not to be used for anything else afterwards.
        n: how many.

    Raises:
        ValueError: ``n`` below 1.
        TypeError: no key.

    >>> first, second = split(key(0))
    >>> first
    array([-1827506293,  -454500418], dtype=int32)
    """
    keys = _derived(key, list(range(integer("n", n, least=1))), _SPLIT)
    return tuple(keys[i, :] for i in range(n))


def bits(key: Array, shape: int | Sequence[int]) -> Array:
    """Draw 32 random bits for each entry.

    Args:
        key: a key.
        shape: of the result; the entries follow in C order, so a shorter vector is the
            beginning of a longer one.

    Returns:
        int32, from -2³¹ to 2³¹ - 1, in the key's library and on its device.

    Raises:
        ValueError: a negative size, 2³² entries or more.
        TypeError: no key.

    >>> bits(key(0), 2)
    array([ 1797259609, -1715843330], dtype=int32)
    """
    return _drawn(key, shape, _int32)


def uniform(key: Array, shape: int | Sequence[int], dtype: Any = "float32") -> Array:
    """Draw numbers from [0, 1), each as likely as any other.

    Args:
        key: a key.
        shape: of the result.
        dtype: ``"float32"``, ``"float64"``, ``"float16"``, ``"bfloat16"``, or the library's own.

    Returns:
        Multiples of 2⁻²⁴ (float64: 2⁻⁵³, float16: 2⁻¹¹, bfloat16: 2⁻⁸), the same on
        every backend to the last bit.

    Raises:
        ValueError: as :func:`bits`.
        TypeError: no key, a dtype that the key's library or device does not have.

    >>> uniform(key(0), (2,), "float64")
    array([0.41845711, 0.31468172])
    """
    name, xp = _real_name(key, dtype), _array.array_namespace(key)
    digits, goal = _DIGITS[name], _array.dtype_of(xp, name)
    if name == "float64":
        return _drawn(
            key,
            shape,
            lambda high, low: (
                (_leading(high, 27, goal) * 2.0**26 + _leading(low, 26, goal)) * 2.0**-digits
            ),
            words=2,
        )
    return _drawn(
        key,
        shape,
        lambda word: _array.cast(_leading(word, digits, xp.float32) * 2.0**-digits, goal),
    )


def normal(key: Array, shape: int | Sequence[int], dtype: Any = "float32") -> Array:
    """Draw numbers from the normal distribution with mean 0 and variance 1.

    ``z = sqrt(-2 log(1 - u)) · cos(2π v)`` with uniform ``u`` and ``v``.

    Args:
        key: a key.
        shape: of the result.
        dtype: as for :func:`uniform`; half precision is computed in float32.

    Returns:
        The numbers. Libraries round ``log`` and ``cos`` differently: the last bits differ
        between backends.

    Raises:
        ValueError: as :func:`bits`.
        TypeError: as :func:`uniform`.

    Source: G. Box and M. Muller, "A note on the generation of random normal deviates", 1958.

    >>> normal(key(0), (2,), "float64").round(6)
    array([-1.128649,  0.830915])
    """
    name, xp = _real_name(key, dtype), _array.array_namespace(key)
    wide = "float64" if name == "float64" else "float32"
    first, second = split(key)
    with _array.on_device(key):
        radius = xp.sqrt(-2.0 * xp.log(1.0 - uniform(first, shape, wide)))
        z = radius * xp.cos(2.0 * math.pi * uniform(second, shape, wide))
        return _array.cast(z, _array.dtype_of(xp, name))


def bernoulli(key: Array, p: float, shape: int | Sequence[int]) -> Array:
    """Draw booleans that are true with probability ``p``.

    Args:
        key: a key.
        p: 0 to 1, kept to a multiple of 2⁻³².
        shape: of the result.

    Returns:
        Booleans, the same on every backend.

    Raises:
        ValueError: ``p`` outside of [0, 1]; as :func:`bits`.
        TypeError: a ``p`` that is no number; no key.

    >>> bernoulli(key(0), 0.5, 4)
    array([False,  True, False,  True])
    """
    below = threshold(p)
    if below == 2**31:  # not an int32: all of them
        return _drawn(key, shape, lambda word: word == word)
    return _drawn(key, shape, lambda word: _int32(word) < below)


def threshold(p: float) -> int:
    """The number that a drawn word is less than with probability ``p``."""
    return round(probability("p", p) * 2**32) - 2**31


def permutation(key: Array, n: int) -> Array:
    """Shuffle the numbers from 0 to ``n - 1``.

    Args:
        key: a key.
        n: how many.

    Returns:
        ``(n,)`` in the integer dtype in which the library indexes, the order of ``n`` draws
        of 64 bits.

    Raises:
        ValueError: a negative ``n``.
        TypeError: no key.

    >>> permutation(key(0), 5)
    array([4, 3, 1, 2, 0])
    """
    words = bits(key, (integer("n", n, least=0), 2))
    xp = _array.array_namespace(key)
    with _array.on_device(key):
        order = xp.argsort(words[:, 1], stable=True)  # decides between equal first words
        return xp.take(order, xp.argsort(xp.take(words[:, 0], order), stable=True))


def beside(key: Array, x: Array) -> Array:
    """The key where ``x`` is.

    A key on the host, two numbers like any option, is taken along; one of another library
    or on another device than ``x`` is returned as it is.
    """
    xp = _check_key(key)
    host = _array.library(_array.host())
    if _array.library(xp) != host or _array.library_of(x) == host:
        return key
    xp = _array.array_namespace(x)
    return xp.asarray(key, dtype=xp.int32, device=_array.device(x))


def remember(text: str) -> None:
    """Hash a text that :func:`fold_in` will be given: ``torch.compile`` cannot read the hash."""
    if text not in _remembered:
        _remembered[text] = _hashed(text)


_remembered: dict[str, int] = {}


def _hashed(text: str) -> int:
    digest = hashlib.blake2b(text.encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")


def probability(name: str, value: Any) -> float:
    """``value`` as a float from 0 to 1."""
    result = number(name, value)
    if not 0.0 <= result <= 1.0:
        raise InvalidValue(f"{name} must be from 0 to 1, got {value!r}")
    return result


def threefry(key: Array, first: Array, second: Array) -> tuple[Array, Array]:
    """Scramble counters, two vectors of one length, into two words each.

    Threefry-2x32 with 20 rounds. All are int32, or all uint32: then it takes fewer steps.
    """
    has_sign = _array.dtype_name(first.dtype) == "int32"
    words = (key[0:1], key[1:2], key[0:1] ^ key[1:2] ^ _PARITY)
    a, b = first + words[0], second + words[1]  # own arrays from here on
    for group in range(_GROUPS):
        for turn in _ROTATIONS[group % 2]:
            a += b
            tail = b >> (32 - turn)
            if has_sign:
                tail &= 2**turn - 1
            b <<= turn
            b |= tail
            b ^= a
        a += words[(group + 1) % 3]
        b += words[(group + 2) % 3] + (group + 1)
    return a, b


def _drawn(
    key: Array, shape: int | Sequence[int], value: Callable[..., Array], words: int = 1
) -> Array:
    """An array whose entries are ``value(word)``, or of ``words=2`` words ``value(a, b)``."""
    xp, size = _check_key(key), _check_shape(shape)
    count = math.prod(size)
    blocks = (count * words + 1) // 2  # a counter gives two words
    if blocks >= 2**31:
        raise InvalidValue(
            f"shape {show(size)} has {count} entries, more than a key has bits for; "
            "draw parts, each with a key of its own: random.fold_in(key, part)"
        )
    step = _BLOCK if _array.is_readable(key) else max(blocks, 1)
    parts = []
    with _array.on_device(key):
        dtype = _array.word_dtype(xp)
        key = _array.cast(key, dtype)
        for start in range(0, max(blocks, 1), step):
            stop = min(start + step, blocks)
            place = xp.arange(start, stop, dtype=dtype, device=_array.device(key))
            a, b = threefry(key, place, _filled(place, _DRAW))
            if words == 2:
                parts.append(value(a, b))
            else:
                pair = xp.stack([a, b], axis=1)
                parts.append(value(xp.reshape(pair, (2 * (stop - start),))))
        flat = parts[0] if len(parts) == 1 else xp.concat(parts)
        return xp.reshape(flat[:count], size)


def _derived(key: Array, numbers: Sequence[int], purpose: int) -> Array:
    """A key for each number: ``(len(numbers), 2)``."""
    xp = _check_key(key)
    with _array.on_device(key):
        signed = [_signed(n) for n in numbers]
        counters = xp.asarray(signed, dtype=xp.int32, device=_array.device(key))
        return xp.stack(threefry(key, counters, _filled(counters, purpose)), axis=1)


def _filled(like: Array, value: int) -> Array:
    xp = _array.array_namespace(like)
    return xp.full(like.shape, value, dtype=like.dtype, device=_array.device(like))


def _leading(word: Array, digits: int, dtype: Any) -> Array:
    """The first ``digits`` bits of a word, as a number of a floating dtype."""
    first = word >> (32 - digits)
    if _array.dtype_name(word.dtype) == "int32":
        first &= 2**digits - 1
    return _array.cast(first, dtype)


def _int32(word: Array) -> Array:
    """The word's bits as int32."""
    return _array.cast(word, _array.array_namespace(word).int32)


def _signed(word: int) -> int:
    """The int32 with the bits of ``word``, which is below 2³²."""
    return word - 2**32 if word >= 2**31 else word


def _real_name(key: Array, dtype: Any) -> str:
    xp, name = _check_key(key), _array.dtype_name(dtype)
    if name not in _DIGITS:
        raise InvalidType(f"dtype must be one of {', '.join(_DIGITS)}, got {name}")
    _array.dtype_of(xp, name)
    if name == "float64":
        here = xp.__array_namespace_info__().dtypes(device=_array.device(key), kind="real floating")
        if name not in here:
            raise InvalidType(
                f"{_array.device_name(key)} has no float64; draw float32, or allow it "
                '(JAX: jax.config.update("jax_enable_x64", True))'
            )
    return name


def _check_key(key: Any) -> Namespace:
    """The namespace of a key, refused where it is none."""
    if not _array.is_array(key):
        raise InvalidType(
            f"key must be a key made by devconv.random.key(seed), got {type(key).__name__}"
        )
    shape, dtype = tuple(key.shape), _array.dtype_name(key.dtype)
    if shape != (2,) or dtype != "int32":
        raise InvalidType(
            f"key must be a key made by devconv.random.key(seed), int32 of shape (2,), got "
            f"{dtype} of shape {shape}"
        )
    return _array.array_namespace(key)


def _check_shape(shape: Any) -> Shape:
    if isinstance(shape, Sequence) and not isinstance(shape, str):
        return tuple(integer(f"shape[{i}]", n, least=0) for i, n in enumerate(shape))
    return (integer("shape", shape, least=0),)
