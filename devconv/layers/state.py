"""A layer's names: matching a state dict against them, and writing the layer down.

Used by :mod:`devconv.layers.layer` alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from devconv import _array
from devconv._array import Array
from devconv._check import InvalidType, InvalidValue, located

if TYPE_CHECKING:
    from devconv.layers.layer import Layer

IGNORED = "num_batches_tracked"


def join(path: str, name: str) -> str:
    """A dotted name."""
    return f"{path}.{name}" if path else name


def match(
    root: Layer, state: Mapping[str, Array], dtype: str, *, cast: bool
) -> list[tuple[Layer, Mapping[str, Any], dict[str, Array]]]:
    """For each layer its declared arrays and those of ``state``; refuses what does not fit."""
    if not isinstance(state, Mapping):
        raise InvalidType(f"state must map names to arrays, got {type(state).__name__}")
    for name, x in state.items():
        if not _array.is_array(x):
            raise InvalidType(f"state[{name!r}] must be an array, got {type(x).__name__}")
    names: dict[int, list[str]] = {}
    for path, layer in root._walk():
        names.setdefault(id(layer), []).append(path)
    given = {name: x for name, x in state.items() if not name.endswith(IGNORED)}
    matched, used, missing = [], set(), []
    untold: ValueError | None = None
    for path, layer in root._firsts():
        try:
            with located(type(layer).__name__, path or None):
                declared = _declared(layer, names[id(layer)], given)
        except ValueError as error:  # no array of the state tells the layer's sizes
            untold = untold or error
            missing.append(f"all of {path or type(layer).__name__}")
            continue
        arrays = {}
        for name, wanted in declared.items():
            aliases = [join(each, name) for each in names[id(layer)]]
            present = [alias for alias in aliases if alias in given]
            if not present:
                missing.append(aliases[0])
                continue
            used.update(present)
            for alias in present:
                _check(alias, given[alias], wanted, dtype, cast=cast)
            _check_same(present, given)
            arrays[name] = given[present[0]]
        matched.append((layer, declared, arrays))
    unknown = sorted(given.keys() - used)
    if untold is not None and not unknown:
        raise untold
    faults = [_listed("missing", missing), _listed("unknown", unknown)]
    if any(faults):
        raise InvalidValue(
            f"state does not fit this model: {'; '.join(filter(None, faults))}; load it into the "
            "model it was saved from"
        )
    return matched


def _listed(what: str, names: list[str]) -> str:
    """``missing 0.weight, 0.bias and 7 more``, or nothing."""
    if not names:
        return ""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{what} {', '.join(names[:5])}{more}"


def _declared(layer: Layer, paths: list[str], given: Mapping[str, Array]) -> Mapping[str, Any]:
    if layer._declared is not None:
        return layer._declared
    for path in paths:
        start = join(path, "")
        shapes = {
            name.removeprefix(start): tuple(x.shape)
            for name, x in given.items()
            if name.startswith(start) and "." not in name.removeprefix(start)
        }
        if shapes:
            return layer.declare(layer.input_from(shapes))
    return layer.declare(None)


def _check_same(names: list[str], given: Mapping[str, Array]) -> None:
    """Refuse two values for the one array that a shared layer has."""
    xp, first = _array.host(), _array.to_numpy(given[names[0]])
    for name in names[1:]:
        other = first if given[name] is given[names[0]] else _array.to_numpy(given[name])
        if not xp.all((other == first) | ((other != other) & (first != first))):
            raise InvalidValue(
                f"state[{names[0]!r}] and state[{name!r}] differ, but are one array of a layer "
                "that the model uses twice; leave one out, or give the model two layers"
            )


def _check(name: str, x: Array, wanted: Any, dtype: str, *, cast: bool) -> None:
    if tuple(x.shape) != wanted.shape:
        raise InvalidValue(
            f"state[{name!r}] has shape {tuple(x.shape)}, the model's is {wanted.shape}; load it "
            "into the model it was saved from"
        )
    ours = _array.dtype_name(x.dtype)
    if ours not in (dtype, wanted.dtype(dtype)) and not (cast and _array.is_floating(x)):
        raise InvalidType(
            f"state[{name!r}] is {ours}, the model {dtype}; pass dtype={dtype!r} to cast it or "
            f"model.to(dtype={ours!r}) first"
        )


def arguments(layer: Layer, *, inits: bool = True) -> str:
    """The arguments of a layer that is a dataclass, those equal to a default left out.

    Without ``inits`` those that say how its arrays begin are left out, too.
    """
    if not dataclasses.is_dataclass(layer):
        return ""
    words = []
    for field in dataclasses.fields(layer):
        if field.name.endswith("_init") and not inits:
            continue
        value = getattr(layer, field.name)
        if field.default is dataclasses.MISSING and not field.kw_only:
            words.append(repr(value))
        elif value != field.default:
            words.append(f"{field.name}={value!r}")
    return ", ".join(words)


def table(root: Layer) -> str:
    """The layer and all inside, one a line, with how many numbers learn in each.

    How the arrays of a layer inside begin is left to its own text, which makes it again.
    """
    lines = _lines(root, "", "")
    width = max(len(text) for text, _ in lines)
    return "\n".join(
        text if count is None else f"{text:<{width}}  # {count:,}" for text, count in lines
    )


def _lines(layer: Layer, name: str, indent: str) -> list[tuple[str, int | None]]:
    label = f"{indent}{name}: " if name else indent
    kind, count = type(layer).__name__, layer.parameter_count or None
    words = layer.describe()
    if name and words == arguments(layer):
        words = arguments(layer, inits=False)
    if not layer.children:
        return [(f"{label}{kind}({words})", count)]
    lines = [(f"{label}{kind}({words}", count)]
    for child_name, child in layer.children.items():
        lines += _lines(child, child_name, indent + "  ")
    return [*lines, (f"{indent})", None)]
