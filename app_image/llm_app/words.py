"""The words by which a text is found, in languages with spaces between them and without."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

# Han, kana, Hangul, Thai, Lao, Khmer and Burmese: written without spaces, or with endings that stick to the word.
UNSPACED = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
    r"\uf900-\ufaff\U00020000-\U0003ffff"
)
_RUNS = re.compile(rf"(?P<unspaced>[{UNSPACED}]+)|(?P<word>(?:(?![{UNSPACED}])[^\W_])+)")


def words(text: str) -> Iterator[str]:
    """Words as they stand, in small letters; of a run without spaces each pair of neighbours (bigrams).

    Full-width letters and half-width kana are those of usual width (NFKC).
    """
    for found in _RUNS.finditer(unicodedata.normalize("NFKC", text).casefold()):
        run = found["unspaced"]
        if run is None:
            yield found["word"]
        elif len(run) == 1:
            yield run
        else:
            yield from (run[at : at + 2] for at in range(len(run) - 1))
