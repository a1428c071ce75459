"""What a file is, whatever its name says: told by its first bytes, or its first line. Pure."""

from __future__ import annotations

POINTER = b"version https://git-lfs.github.com/spec/"
HEAD_BYTES = len(POINTER)
# By the first bytes: what it is, by which suffixes it is read as that, and else what to do.
SIGNATURES: dict[bytes, tuple[str, tuple[str, ...], str]] = {
    b"\x1f\x8b": ("gzip", (".gz",), "add .gz to the name"),
    b"\x28\xb5\x2f\xfd": ("zstd", (".zst",), "add .zst to the name"),
    b"BZh91AY&SY": ("bzip2", (".bz2",), "add .bz2 to the name"),
    b"\x04\x22\x4d\x18": ("lz4", (".lz4",), "add .lz4 to the name"),
    b"\xfd7zXZ\x00": ("xz", (), "unpack it with xz -d"),
    b"PK\x03\x04": ("a zip archive", (), "unpack it"),
    b"PAR1\x15": ("Parquet", (".parquet",), "name it .parquet"),
    b"ARROW1\x00\x00": ("Arrow", (".arrow",), "name it .arrow"),
    b"%PDF-": ("PDF", (), "write its text to a file"),
}


def belied(head: bytes, suffix: str) -> str:
    """What is wrong with a file of this suffix that begins so; empty if nothing is."""
    if head == POINTER:
        return "is a Git LFS pointer, three lines in the place of the file; fetch it with git lfs pull"
    for begin, (what, suffixes, todo) in SIGNATURES.items():
        if head.startswith(begin) and suffix not in suffixes:
            return f"is {what} by its first bytes, which its name doesn't say; {todo}"
    return ""


def whole_file(line: str) -> str:
    """What is wrong with more than the first line, which is no JSON, for the end of a message."""
    if line.lower().startswith(("<!doctype", "<html")):
        return " (it is a web page, as a download that was refused leaves: fetch the file anew)"
    if line == "[" or line.startswith(("[{", "[ {")):
        return " (each line must be a JSON object, and the file is an array: write it with jq -c .[])"
    if line == "{":
        return " (each line must be a JSON object: write the file with jq -c .)"
    return " (each line must be a JSON object: write the file as JSONL)"
