"""The report as one HTML page: tables, plots as inline SVG, samples. It needs no script and no other file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llm_trainer.data.quality.report import FilterReport, Histogram, QualityReport, Reason, SourceReport
from llm_trainer.runtime.html_page import document, table, text

WIDTH, HEIGHT = 320, 90

_LEAD = (
    "What each filter of spec.data.quality read, kept and dropped. A line in a plot is the threshold; documents that "
    "an earlier filter dropped didn't come to a later one."
)


def page(report: QualityReport) -> str:
    parts = [
        f'<p class="soft">{_LEAD}</p>',
        table(
            ("source", "language", "domain", "read", "kept", "kept, bytes", "tokens"),
            [(s.name, s.language, s.domain, s.read, _share(s.kept, s.read), _share(s.kept_bytes, s.read_bytes),
              s.kept_tokens) for s in report.sources],
        ),
        _dropped(report),
    ]  # fmt: skip
    for source in report.sources:
        parts += _source(source)
    return document("Quality of the corpus", parts)


def _dropped(report: QualityReport) -> str:
    rows = [(reason, count) for reason, count in report.dropped.items()]
    return "<h2>Dropped, by threshold</h2>" + (table(("threshold", "documents"), rows) if rows else "<p>Nothing.</p>")


def _source(source: SourceReport) -> Iterator[str]:
    yield f"<h2>{text(source.name)}</h2>"
    if source.damaged:
        yield f"<p>Damaged files, which were skipped from there on: {text('; '.join(source.damaged))}</p>"
    yield table(
        ("filter", "read", "kept", "dropped", "dropped, bytes", "changed", "replaced or taken out"),
        [
            (f.name, f.read, f.read - f.dropped, _share(f.dropped, f.read), f.dropped_bytes, f.edited,
             ", ".join(f"{kind} {count:,}" for kind, count in f.edits.items()))
            for f in source.filters
        ],
    )  # fmt: skip
    for each in source.filters:
        yield from _filter(each)


def _filter(each: FilterReport) -> Iterator[str]:
    if each.histograms or each.reasons:
        yield f"<h3>{text(each.name)}</h3>"
    if each.histograms:
        yield '<div class="plots">'
        yield from (plot(name, histogram) for name, histogram in each.histograms.items())
        yield "</div>"
    for name, reason in each.reasons.items():
        yield from _samples(name, reason)


def _samples(name: str, reason: Reason) -> Iterator[str]:
    yield f"<details><summary>{text(name)}: {reason.documents:,} documents, {reason.bytes:,} bytes</summary>"
    for sample in reason.samples:
        yield f'<p class="soft">{text(sample.place)}{": " if sample.detail else ""}{text(sample.detail)}</p>'
        yield f"<pre>{text(sample.text)}</pre>"
    yield "</details>"


def plot(name: str, histogram: Histogram) -> str:
    """Bars of equal width, one for each bin, with a line at each threshold."""
    bins, most = len(histogram.documents), max(1, *histogram.documents)
    width = WIDTH / bins
    bars = "".join(
        f'<rect class="bar" x="{index * width:.1f}" y="{HEIGHT * (1 - count / most):.1f}" width="{width - 0.5:.1f}" '
        f'height="{HEIGHT * count / most:.1f}"><title>{histogram.edges[index]:g} to {histogram.edges[index + 1]:g}: '
        f"{count:,}</title></rect>"
        for index, count in enumerate(histogram.documents)
        if count
    )
    lines = "".join(
        f'<line class="limit" stroke-width="2" x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{HEIGHT}"/>'
        for limit in (histogram.minimum, histogram.maximum)
        if limit is not None
        for at in [WIDTH * _position(histogram.edges, limit)]
    )
    low, high = f"{histogram.edges[0]:g}", f"{histogram.edges[-1]:g}"
    limits = [f"{side} {limit:g}" for side, limit in
              (("at least", histogram.minimum), ("at most", histogram.maximum)) if limit is not None]  # fmt: skip
    return (
        f'<figure><svg role="img" aria-label="{text(name)}" width="{WIDTH}" height="{HEIGHT + 14}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT + 14}">{bars}'
        f'<line class="axis" x1="0" x2="{WIDTH}" y1="{HEIGHT}" y2="{HEIGHT}"/>'
        f'{lines}<text x="0" y="{HEIGHT + 12}">{low}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT + 12}" text-anchor="end">{high}</text></svg>'
        f"<figcaption>{text(name)} {' and '.join(limits)}</figcaption></figure>"
    )


def _position(edges: Sequence[float], value: float) -> float:
    """Where a value lies on an axis of equally wide bins, from 0 to 1."""
    if value >= edges[-1]:
        return 1.0
    index = max(0, max((i for i, edge in enumerate(edges) if edge <= value), default=0))
    inside = (value - edges[index]) / (edges[index + 1] - edges[index])
    return (index + min(1.0, max(0.0, inside))) / (len(edges) - 1)


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({100 * part / whole:.1f} %)" if whole else "0"
