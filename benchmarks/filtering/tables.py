"""Figures of filtered searches as tables and as a picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from benchmarks.filtering.arms import FREE, ratio
from benchmarks.report import table

Cases = dict[str, dict[str, Any]]  # "table: name" -> figures
NEAR, FAR = 1.3, 2.0  # times the best arm's time that a choice may take: nearly always, and always
EQUAL_US = 15.0  # smaller differences of a time say nothing


def report(cases: Cases, arms: list[str], peers: dict[str, dict[str, Any]]) -> str:
    parts = []
    for name in dict.fromkeys(key.partition(": ")[0] for key in cases if not key.startswith("sweep: ")):
        chosen = {key: one for key, one in cases.items() if key.startswith(f"{name}: ")}
        parts.append(of_cases(name, chosen, arms))
    if peers:
        parts.append(beside(cases, peers))
    swept = {key: one for key, one in cases.items() if key.startswith("sweep: ")}
    if swept:
        parts.append(choices(swept))
    return "\n\n".join(["", *parts])


def of_cases(title: str, cases: Cases, arms: list[str]) -> str:
    """Microseconds and recall of every arm; `of best` is the planner's time over the best arm's."""
    rows = [[title, "share", "cold us", *(f"{arm} us" for arm in arms), "recall", "chosen", "escalated", "of best"]]
    for name, one in cases.items():
        recalls = " ".join(f"{one['arms'][arm]['recall']:.3f}" for arm in arms)
        times = [f"{one['arms'][arm]['us']:,.0f}" for arm in arms]
        rows.append(
            [
                name.partition(": ")[2],
                f"{100 * one['share']:.3f}%",
                f"{one['cold_us']:,.0f}",
                *times,
                recalls,
                one["chosen"],
                f"{one['escalated']:.2f}",
                f"{ratio(one):.2f}",
            ]
        )
    return table(rows)


def beside(cases: Cases, peers: dict[str, dict[str, Any]]) -> str:
    """vecdb and other engines on the same cases, and vecdb's speed over that of the best of them."""
    rows, ratios = [["queries/s (recall)", "vecdb", *peers, "ratio"]], []
    for name in dict.fromkeys(key for figures in peers.values() for key in figures):
        ours = cases[name]["arms"][FREE]
        others = [figures.get(name) for figures in peers.values()]
        best = min(other["us"] for other in others if other is not None)
        ratios.append(best / ours["us"])
        cells = [f"{1e6 / one['us']:,.0f} ({one['recall']:.3f})" if one else "-" for one in (ours, *others)]
        rows.append([name, *cells, f"{ratios[-1]:.2f}"])
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    rows.append(["geometric mean", *[""] * (1 + len(peers)), f"{mean:.2f}"])
    return table(rows)


def summary(cases: Cases) -> dict[str, float]:
    """Of random filters: the share whose choice was near the best arm, and the worst ratio; small differences equal."""
    ratios = [1.0 if slower(one) < EQUAL_US else ratio(one) for one in cases.values()]
    near = sum(one <= NEAR for one in ratios) / len(ratios)
    recall = min(one["arms"][FREE]["recall"] for one in cases.values())
    return {"filters": len(ratios), "near": near, "worst": max(ratios), "least_recall": recall}


def slower(figures: dict[str, Any]) -> float:
    """Microseconds that the planner's choice took more than the best arm."""
    ours = float(figures["arms"][FREE]["us"])
    return ours - ours / ratio(figures)


def choices(cases: Cases) -> str:
    told = summary(cases)
    return (
        f"{told['filters']} random filters: {100 * told['near']:.1f} % of the choices within {NEAR} of the best arm, "
        f"the worst {told['worst']:.2f} times (aim: 95 %, {FAR}); least recall {told['least_recall']:.3f}"
    )


def draw(cases: Cases, arms: list[str], path: Path) -> None:
    """Latency and recall by selectivity, a line for each arm and one for the planner's choice."""
    from matplotlib.figure import Figure

    curve = sorted((one for key, one in cases.items() if key.startswith("selectivity: ")), key=lambda one: one["share"])
    shares = [one["share"] for one in curve]
    figure = Figure(figsize=(9, 7), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    for arm in arms:
        style = {"color": "black", "linewidth": 3, "alpha": 0.5} if arm == FREE else {"marker": "."}
        above.plot(shares, [one["arms"][arm]["us"] for one in curve], label=arm, **style)
        below.plot(shares, [one["arms"][arm]["recall"] for one in curve], label=arm, **style)
    above.set(xscale="log", yscale="log", ylabel="microseconds a query, payloads read", title="Filters at random")
    below.set(xlabel="share of the records that match", ylabel="recall@10")
    above.legend()
    above.grid(alpha=0.3)
    below.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
