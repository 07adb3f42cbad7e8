"""How many digits may be given up: set, told, given back, and each thread by itself."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import devconv as dc
from devconv import functional as F


def test_exact_is_the_default_and_a_block_gives_it_back() -> None:
    assert dc.precision() == "exact"
    with dc.precision("fast") as level:
        assert repr(level) == "precision('fast')"
        assert dc.precision() == "fast"
        with dc.precision("exact"):
            assert dc.precision() == "exact"
        assert dc.precision() == "fast"
    assert dc.precision() == "exact"


def test_it_is_a_setter_too() -> None:
    before = dc.precision("fast")
    assert dc.precision() == "fast"
    with before:
        assert dc.precision() == "fast"
    assert dc.precision() == "exact"
    with before:  # and may be used again
        assert dc.precision() == "fast"
    assert dc.precision() == "exact"


def test_an_error_inside_gives_it_back() -> None:
    with pytest.raises(KeyError), dc.precision("fast"):
        raise KeyError
    assert dc.precision() == "exact"


@pytest.mark.parametrize("name", ["", "Fast", "float16", 1, True])
def test_other_names_are_refused_and_change_nothing(name: str) -> None:
    with pytest.raises(dc.InvalidValue, match=r"^precision must be one of 'exact', 'fast', got "):
        dc.precision(name)
    assert dc.precision() == "exact"


def test_threads_do_not_disturb_each_other() -> None:
    seen: list[str] = []

    def other() -> None:
        seen.append(dc.precision())
        dc.precision("fast")
        seen.append(dc.precision())

    with dc.precision("fast"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        dc.precision("exact")
    assert seen == ["exact", "fast"]
    assert dc.precision() == "exact"


def test_a_pullback_goes_back_the_way_the_forward_pass_came() -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 3, 9, 8)), rng.standard_normal((4, 3, 3, 3))
    x, weight = x.astype("float32"), weight.astype("float32")
    with dc.precision("fast"):
        y, pullback = F.conv.vjp(x, weight, algorithm="winograd")
        inside = pullback(y)
    outside = pullback(y)
    exact, back = F.conv.vjp(x, weight, algorithm="winograd")
    assert y.tobytes() != exact.tobytes()
    for a, b, c in zip(inside, outside, back(y), strict=True):
        assert a.tobytes() == b.tobytes() != c.tobytes()
