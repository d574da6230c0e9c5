"""Text tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """Aligned: the first column left, numbers right."""
    lines = [list(head), *map(list, body)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        [f"{c:>{w}}" if n else f"{c:<{w}}" for n, (c, w) in enumerate(zip(line, widths, strict=True))]
        for line in lines
    ]
    return "\n".join(
        "  ".join(line).rstrip() for line in [text[0], ["-" * width for width in widths], *text[1:]]
    )
