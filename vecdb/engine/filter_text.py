"""A filter as a line of text, for people: `section == 'libs' and 2020 <= year < 2023`."""

from __future__ import annotations

import dataclasses

from vecdb.filter.expression import And, Leaf, Node, Not, Or
from vecdb.types import Equal, Prefix, Probe, Scalar, Within

VALUES_SHOWN = 4  # of an `in`
TEXT_SHOWN = 40  # characters of a value


def filter_text(node: Node) -> str:
    """The filter with the operators of Python; parentheses around every part that is itself joined."""
    match node:
        case Leaf():
            return _probe(node.probe)
        case Not():
            return f"not ({filter_text(node.node)})"
        case And():
            return " and ".join(_part(one) for one in node.nodes) or "everything"
        case Or():
            return " or ".join(_part(one) for one in node.nodes) or "nothing"
        case _:
            raise TypeError(f"not a filter node: {node!r}")


def _part(node: Node) -> str:
    text = filter_text(node)
    return f"({text})" if isinstance(node, And | Or) else text


def _probe(probe: Probe) -> str:
    match probe:
        case Equal():
            return _equal(probe.path, probe.values)
        case Within():
            low = "" if probe.low is None else f"{_value(probe.low)} {'<' if probe.low_open else '<='} "
            high = "" if probe.high is None else f" {'<' if probe.high_open else '<='} {_value(probe.high)}"
            return f"{low}{probe.path}{high}"
        case Prefix():
            return f"{probe.path} starts with {_value(probe.text)}"
        case _:
            return _any_probe(probe)


def _equal(path: str, values: tuple[Scalar, ...]) -> str:
    if len(values) == 1:
        return f"{path} == {_value(values[0])}"
    shown = ", ".join(map(_value, values[:VALUES_SHOWN]))
    more = f", ... {len(values):,} values" if len(values) > VALUES_SHOWN else ""
    return f"{path} in ({shown}{more})"


def _any_probe(probe: Probe) -> str:
    """The path, the name of the probe, and what else it has."""
    values = [getattr(probe, field.name) for field in dataclasses.fields(probe) if field.name != "path"]
    return " ".join([probe.path, type(probe).__name__.lower(), *map(_value, values)])


def _value(value: object) -> str:
    text = repr(value)
    return text if len(text) <= TEXT_SHOWN else f"{text[: TEXT_SHOWN - 3]}..."
