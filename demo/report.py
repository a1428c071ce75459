"""What the demo shows at the end: curves, compression against xz, answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from demo.chat import Answer, ask

Rows = list[dict[str, Any]]
Points = list[tuple[int, float]]


def draw_curves(histories: dict[str, Rows], target: Path) -> None:
    """One panel a stage: its loss, or the reward of a stage that has one, in training and held out, over steps."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(histories), figsize=(6 * len(histories), 4), squeeze=False)
    for panel, (stage, rows) in zip(panels[0], histories.items(), strict=True):
        name, training, held_out = curves_of(rows)
        panel.plot(*zip(*training, strict=True), label="training", linewidth=1)
        if held_out:
            panel.plot(*zip(*held_out, strict=True), "o-", label="held out", markersize=4)
        panel.set(title=stage, xlabel="step", ylabel=name)
        panel.grid(visible=True, alpha=0.3)
        panel.legend()
    figure.tight_layout()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=120)


def curves_of(rows: Rows) -> tuple[str, Points, Points]:
    """What is drawn of a stage's history: its name, and (step, figure) in training and held out."""
    rewards = [(row["step"], row["figures"]["reward"]) for row in rows if "reward" in row.get("figures", {})]
    name = "reward" if rewards else "loss"
    training = rewards or [(row["step"], row["loss"]) for row in rows if "loss" in row]
    evaluations = [(row["step"], row["evaluation"]) for row in rows if "evaluation" in row]
    return name, training, [(step, figures[name]) for step, figures in evaluations if name in figures]


def compression_table(model: dict[str, float], compressors: dict[str, dict[str, float]]) -> str:
    """Held-out bits per byte by language: the model against xz and gzip."""
    lines = [f"{'language':<10}{'model':>8}" + "".join(f"{name:>8}" for name in next(iter(compressors.values())))]
    for language, others in sorted(compressors.items()):
        figures = [model[language], *others.values()]
        lines.append(f"{language:<10}" + "".join(f"{figure:>8.2f}" for figure in figures))
    return "\n".join(lines)


def ended_share(url: str, model: str, questions: list[str]) -> tuple[float, list[Answer]]:
    """Share of the held-out questions whose answer the model ended by itself, and the answers."""
    answers = [ask(url, model, question) for question in questions]
    return sum(answer.ended for answer in answers) / len(answers), answers
