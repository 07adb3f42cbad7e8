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
        ((("Conv2d", ""), ("conv", None)), "Conv2d: "),
        ((("Sequential", ""), ("Conv2d", "1"), ("conv", None)), "1 (Conv2d): "),
    ],
)
def test_a_message_says_where(places: Any, where: str) -> None:
    assert raise_in(*places) == f"{where}stride must be at least 1, got 0"
    error = note_in(*places)
    assert error.__notes__[1:] == ([f"in {where.removesuffix(': ')}"] if where else [])


def note_in(*places: tuple[str, str | None]) -> Exception:
    """A plain error raised inside ``places``, the outermost first."""

    def inner(rest: tuple[tuple[str, str | None], ...]) -> None:
        if not rest:
            error = ValueError("no such thing")
            error.add_note("its own")
            raise error
        with located(*rest[0]):
            inner(rest[1:])

    with pytest.raises(ValueError, match=r"^no such thing\n") as caught:
        inner(places)
    return caught.value


def test_other_errors_keep_type_and_message_and_get_one_note() -> None:
    error = note_in(("Sequential", ""), ("Sequential", "0"), ("Scaled", "1"), ("scale", None))
    assert type(error) is ValueError
    assert str(error) == "no such thing"
    assert error.__notes__ == ["its own", "in 0.1 (Scaled)"]
    with pytest.raises(KeyboardInterrupt) as caught, located("Conv2d", "1"):
        raise KeyboardInterrupt
    assert not hasattr(caught.value, "__notes__")


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


# --- yes and no ---


@pytest.mark.parametrize("value", [True, np.True_])
def test_yes(value: Any) -> None:
    assert _check.flag("f", value) is True


@pytest.mark.parametrize("value", [False, np.False_])
def test_no(value: Any) -> None:
    assert _check.flag("f", value) is False


@pytest.mark.parametrize("value", ["yes", "", 1, 0, None, 0.0, [True], np.asarray(True)])
def test_neither_yes_nor_no(value: Any) -> None:
    with pytest.raises(InvalidType) as caught:
        _check.flag("f", value)
    assert str(caught.value) == f"f must be True or False, got {value!r}"


def test_a_value_is_shown_on_one_line() -> None:
    assert _check.brief("a\nb") == r"'a\nb'"
    assert _check.brief(np.zeros((2, 2))) == "array([[0., 0.], [0., 0.]])"
    text = _check.brief(["relu"] * 50)
    assert len(text) == 63
    assert text.endswith("...")
    with pytest.raises(InvalidType, match=r"^n must be an int, got array\(\[\[0\., 0\.\], \["):
        _check.integer("n", np.zeros((2, 2)), least=0)


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
    with pytest.raises(InvalidValue, match=r"^n must not be 0$"):
        _check.nonzero("n", 0)
    assert _check.nonzero("n", -1) == -1.0


def test_choices() -> None:
    assert _check.choice("m", "b", ("a", "b")) == "b"
    for wrong in ("c", None, 1, np.ones(2)):
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
