"""The public surface is what `vecdb.__all__` says, and all of it is documented and typed."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from typing import Any

import pytest

import vecdb


def public_callables() -> Iterator[tuple[str, Any]]:
    """(name, function or class) of everything exported, with the public methods that vecdb itself defines."""
    for name in vecdb.__all__:
        value = getattr(vecdb, name)
        if not callable(value):
            continue
        yield name, value
        for member, function in vars(value).items() if inspect.isclass(value) else ():
            plain = function.__func__ if isinstance(function, classmethod | staticmethod) else function
            plain = plain.fget if isinstance(plain, property) else plain
            if not member.startswith("_") and inspect.isfunction(plain) and plain.__module__.startswith("vecdb"):
                yield f"{name}.{member}", plain


CALLABLES = dict(public_callables())


def test_all_is_sorted_and_without_repeats() -> None:
    """Constants, then classes, then functions, each by name: the order that the formatter keeps."""

    def rank(name: str) -> tuple[int, str]:
        return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2, name)

    assert list(vecdb.__all__) == sorted(set(vecdb.__all__), key=rank)


def test_all_is_what_is_visible() -> None:
    """Every exported name is listed by dir(); nothing public stands in vecdb/__init__.py beside them."""
    listed = set(vecdb.__all__)
    assert listed <= set(dir(vecdb))
    visible = {
        name
        for name, value in vars(vecdb).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and name != "annotations"
    }
    assert visible <= listed


@pytest.mark.parametrize("name", CALLABLES)
def test_public_callables_are_documented(name: str) -> None:
    value = CALLABLES[name]
    text = value.__doc__
    # A dataclass without a docstring gets its signature as one.
    generated = inspect.isclass(value) and text is not None and text.startswith(f"{value.__name__}(")
    assert text
    assert text.strip()
    assert not generated


@pytest.mark.parametrize("name", [name for name, value in CALLABLES.items() if inspect.isfunction(value)])
def test_public_functions_are_typed(name: str) -> None:
    signature = inspect.signature(CALLABLES[name])
    untyped = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.annotation is inspect.Parameter.empty and parameter.name not in ("self", "cls")
    ]
    assert not untyped
    assert signature.return_annotation is not inspect.Signature.empty


def test_the_package_says_that_it_is_typed() -> None:
    from tests.rules.source import PACKAGE

    assert (PACKAGE / "py.typed").is_file()
