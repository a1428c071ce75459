import random
import subprocess
from pathlib import Path

import pytest
from demo.baseline import compressed_bits_per_byte


def test_agrees_with_the_programs(tmp_path: Path) -> None:
    words = random.Random(1).choices(["apt ", "dpkg ", "パッケージ", "設定。"], k=5_000)
    texts = ["".join(words[:2_000]), "".join(words[2_000:])]
    file = tmp_path / "text"
    file.write_text("\n\n".join(texts))
    bits = compressed_bits_per_byte(texts)
    for program in ("xz", "gzip"):
        size = len(subprocess.run([program, "-9", "--stdout", file], capture_output=True, check=True).stdout)
        assert bits[program] == pytest.approx(8 * size / file.stat().st_size, rel=0.02)


def test_refuses_no_text() -> None:
    with pytest.raises(ValueError, match="empty"):
        compressed_bits_per_byte([])
