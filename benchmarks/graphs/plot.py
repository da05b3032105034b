"""Curves of recall and speed as a picture, one panel for each set of vectors and k."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

LOWEST = 0.9  # recall at the left edge


def draw(sets: list[dict[str, Any]], file: Path) -> bool:
    """False when matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return False
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    ks = list(dict.fromkeys(k for figures in sets for k in figures["curves"]))
    figure, panels = pyplot.subplots(
        len(sets), len(ks), figsize=(7 * len(ks), 4.5 * len(sets)), squeeze=False, layout="constrained"
    )
    for line, figures in zip(panels, sets, strict=True):
        for panel, k in zip(line, ks, strict=True):
            fill(panel, figures, k)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    return True


def fill(panel: Any, figures: dict[str, Any], k: str) -> None:
    for name, curve in figures["curves"][k].items():
        ours = name.startswith("vecdb")
        style = {"color": "black", "linewidth": 2.5, "zorder": 3} if ours else {"linewidth": 1.2}
        shown = [(recall, qps) for recall, qps in zip(curve["recall"], curve["qps"], strict=True) if recall >= LOWEST]
        panel.plot(*zip(*shown, strict=True) if shown else ([], []), marker="o", markersize=3, label=name, **style)
    panel.set(xlabel=f"recall@{k}", ylabel="queries/s, one thread", yscale="log", xlim=(LOWEST, 1.0))
    panel.set_title(f"{figures['name']}, {figures['rows']:,} rows, {figures['metric']}")
    panel.grid(True, which="both", alpha=0.3)
    panel.legend(fontsize=7)
