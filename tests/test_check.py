"""Argument checks: what passes, and the one line for what does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from devconv import _check
from devconv._check import DevconvError, InvalidType, InvalidValue, located

# --- errors ---


def test_errors_are_builtin_errors_too() -> None:
    assert issubclass(InvalidValue, DevconvError)
    assert issubclass(InvalidValue, ValueError)
    assert issubclass(InvalidType, DevconvError)
    assert issubclass(InvalidType, TypeError)


def raise_in(*places: tuple[str, str | None]) -> str:
    """The message of an error raised inside ``places``, the outermost first."""

    def inner(rest: tuple[tuple[str, str | None], ...]) -> None:
        if not rest:
            raise InvalidValue("stride must be at least 1, got 0")
        with located(*rest[0]):
            inner(rest[1:])

    with pytest.raises(InvalidValue) as caught:
        inner(places)
    return str(caught.value)


@pytest.mark.parametrize(
    ("places", "where"),
    [
        ((), ""),
        ((("conv", None),), "conv: "),
        ((("conv pullback", None), ("conv", None)), "conv: "),
        ((("Conv2d", "1"), ("conv", None)), "1 (Conv2d): "),
        ((("Sequential", "0"), ("Conv2d", "1"), ("conv", None)), "0.1 (Conv2d): "),
        ((("Sequential", None), ("Conv2d", "1"), ("conv", None)), "1 (Conv2d): "),
    ],
)
def test_a_message_says_where(places: Any, where: str) -> None:
    assert raise_in(*places) == f"{where}stride must be at least 1, got 0"


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(KeyError, match=r"^'key'$"), located("Conv2d", "1"):
        raise KeyError("key")


# --- ints ---


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.asarray(3)])
def test_ints_of_every_kind(value: Any) -> None:
    result = _check.integer("n", value, least=0)
    assert result == 3
    assert type(result) is int


@pytest.mark.parametrize("value", [1.0, "1", None, True, False, np.True_, [1], np.ones(2), 1j])
def test_what_is_no_int(value: Any) -> None:
    with pytest.raises(InvalidType, match=r"^n must be an int, got "):
        _check.integer("n", value, least=0)


def test_ints_below_the_least() -> None:
    with pytest.raises(InvalidValue, match=r"^n must be at least 1, got 0$"):
        _check.integer("n", 0, least=1)


def test_one_entry_per_dimension() -> None:
    assert _check.per_dimension("k", 3, 2, least=1) == (3, 3)
    assert _check.per_dimension("k", [3, 4], 2, least=1) == (3, 4)
    with pytest.raises(
        InvalidValue, match=r"^k needs one entry for each of 2 .*, got \(1, 2, 3\)$"
    ):
        _check.per_dimension("k", (1, 2, 3), 2, least=1)
    with pytest.raises(InvalidValue, match=r"^k\[1\] must be at least 1, got 0$"):
        _check.per_dimension("k", (1, 0), 2, least=1)
    with pytest.raises(InvalidType, match=r"^k\[0\] must be an int, got 1.5$"):
        _check.per_dimension("k", (1.5, 1), 2, least=1)
    with pytest.raises(InvalidType, match=r"^k must be an int, got '33'$"):
        _check.per_dimension("k", "33", 2, least=1)


@pytest.mark.parametrize(
    ("value", "pairs"),
    [
        (1, ((1, 1), (1, 1))),
        ((1, 2), ((1, 1), (2, 2))),
        ([(1, 2), 3], ((1, 2), (3, 3))),
        (((0, 1), [2, 0]), ((0, 1), (2, 0))),
    ],
)
def test_pairs_per_dimension(value: Any, pairs: Any) -> None:
    assert _check.pairs_per_dimension("p", value, 2) == pairs


def test_two_numbers_are_not_a_pair_in_one_dimension() -> None:
    with pytest.raises(InvalidValue, match=r"^p needs one entry .* each of 1 spatial .*\(1, 2\)$"):
        _check.pairs_per_dimension("p", (1, 2), 1)
    assert _check.pairs_per_dimension("p", [(1, 2)], 1) == ((1, 2),)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (-1, InvalidValue, "p must be at least 0, got -1"),
        ((0, -1), InvalidValue, r"p\[1\] must be at least 0, got -1"),
        (((0, -2), 0), InvalidValue, r"p\[0\] must be at least 0, got -2"),
        ((0, (1,)), InvalidValue, r"p\[1\] must be an int or a \(before, after\) pair, got \(1,\)"),
        ((0, "11"), InvalidType, r"p\[1\] must be an int, got '11'"),
        ((0, 1.0), InvalidType, r"p\[1\] must be an int, got 1.0"),
        ("same", InvalidType, "p must be an int, got 'same'"),
        (True, InvalidType, "p must be an int, got True"),
    ],
)
def test_pairs_are_refused(value: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        _check.pairs_per_dimension("p", value, 2)


# --- numbers, choices, shapes ---


@pytest.mark.parametrize("value", [1, 1.0, np.float32(1.0), np.int64(1)])
def test_numbers_of_every_kind(value: Any) -> None:
    result = _check.number("n", value)
    assert result == 1.0
    assert type(result) is float


def test_infinity_is_a_number() -> None:
    assert _check.number("n", float("-inf")) == float("-inf")


@pytest.mark.parametrize("value", [True, "1", None, 1j, [1.0], np.ones(1)])
def test_what_is_no_number(value: Any) -> None:
    with pytest.raises(InvalidType, match=r"^n must be a number, got "):
        _check.number("n", value)


def test_numbers_out_of_range() -> None:
    with pytest.raises(InvalidValue, match=r"^n must be a number, got nan$"):
        _check.number("n", float("nan"))
    with pytest.raises(InvalidValue, match=r"^n must be at least 0.0, got -1$"):
        _check.number("n", -1, least=0.0)
    with pytest.raises(InvalidValue, match=r"^n must be greater than 0.0, got 0.0$"):
        _check.number("n", 0.0, above=0.0)
    assert _check.number("n", 0.0, least=0.0) == 0.0


def test_choices() -> None:
    assert _check.choice("m", "b", ("a", "b")) == "b"
    for wrong in ("c", None, 1):
        with pytest.raises(InvalidValue, match=r"^m must be one of 'a', 'b', got "):
            _check.choice("m", wrong, ("a", "b"))


def test_shapes_in_words() -> None:
    assert _check.show((None, 3, None)) == "(N, 3, N)"
    assert _check.show((4,)) == "(4,)"
    assert _check.show(()) == "()"


def test_rank() -> None:
    _check.rank_at_least("x", (1, 2, 3), 3, "(N, C, L)")
    with pytest.raises(InvalidValue, match=r"^x must have shape \(N, C, L\), got \(1, 2\)$"):
        _check.rank_at_least("x", (1, 2), 3, "(N, C, L)")
