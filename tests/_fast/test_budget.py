"""The memory of a tile: classes of GPUs, with bounds that no GPU's memory lies near."""

from __future__ import annotations

import pytest

from devconv._fast.budget import CLASSES, GIB, LARGEST, MIB, budget


@pytest.mark.parametrize(
    ("gigabytes", "expected"),
    [
        *((2, 128), (4, 128), (6, 256), (8, 256), (10, 512), (12, 512), (16, 512), (20, 1024)),
        *((24, 1024), (32, 1024), (40, 2048), (48, 2048), (80, 2048), (141, 2048), (192, 2048)),
    ],
)
def test_what_a_driver_keeps_changes_no_class(gigabytes: int, expected: int) -> None:
    for share in (1.0, 0.97, 0.93):
        assert budget(int(share * gigabytes * GIB)) == expected * MIB


def test_larger_gpus_get_more_and_never_much_of_it() -> None:
    bounds, sizes = zip(*CLASSES, strict=True)
    assert list(bounds) == sorted(bounds)
    assert [*sizes, LARGEST] == sorted({*sizes, LARGEST})
    least = (2 * GIB, *bounds)
    assert all(16 * size <= total for total, size in zip(least, (*sizes, LARGEST), strict=True))
