"""What general-purpose compressors make of a text: the mark that a language model has to beat."""

import gzip
import lzma
from collections.abc import Iterable


def compressed_bits_per_byte(texts: Iterable[str]) -> dict[str, float]:
    """Bits per byte of UTF-8 that `xz -9` and `gzip -9` need for the texts joined into one file.

    Raises:
        ValueError: the texts are empty.

    """
    raw = "\n\n".join(texts).encode()
    if not raw:
        raise ValueError("there is no text to compress: the held-out documents are empty")
    # No check sum in xz: it says nothing about the text. gzip's is part of the format.
    compressed = {
        "xz": lzma.compress(raw, check=lzma.CHECK_NONE, preset=9),
        "gzip": gzip.compress(raw, compresslevel=9),
    }
    return {name: 8 * len(data) / len(raw) for name, data in compressed.items()}
