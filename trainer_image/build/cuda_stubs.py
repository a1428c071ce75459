"""Put a stub where torch links to a library of NVIDIA's, of which this image has none.

The package index's torch is the CUDA build. It runs on CPU, where it asks the CUDA runtime how many GPUs there are
and calls nothing else; but the loader wants all of the libraries, 1.8 GB under licences of NVIDIA's own. A stub has
the names and versions that torch links to. Its functions answer as on a machine without NVIDIA's driver.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

# A library whose symbols' version isn't its own name is told by how they begin.
PREFIXES = {
    "nccl": "libnccl.so.2",
    "pnccl": "libnccl.so.2",
    "curand": "libcurand.so.10",
    "cuFile": "libcufile.so.0",
    "cusparseLt": "libcusparseLt.so.0",
    "nvshmem": "libnvshmem_host.so.3",
}
NVIDIA = re.compile(r"lib(cu|nv|nccl)\w*\.so\.\d+")
TEXTS = re.compile(r"\w*Get\w*(String|ErrorName)|ncclGetLastError")
NO_DRIVER = 35  # cudaErrorInsufficientDriver; to the other libraries any number but 0 is an error
MESSAGE = "this image is for CPU: it has none of NVIDIA's libraries"
SYMBOL = re.compile(r"FUNC\s+\S+\s+\S+\s+UND\s+([A-Za-z_]\w*)(?:@(\S+))?")


def read(option: str, library: Path) -> str:
    return subprocess.run(
        ["readelf", "-W", *option.split(), library], check=True, capture_output=True, text=True
    ).stdout


def needed(libraries: list[Path]) -> set[str]:
    """Names of NVIDIA's libraries that torch's ask the loader for."""
    found = {name for one in libraries for name in re.findall(r"\(NEEDED\).*\[(.+)\]", read("-d", one))}
    return {name for name in found if NVIDIA.fullmatch(name)}


def wanted(libraries: list[Path]) -> Iterator[tuple[str, str, str]]:
    """Library, symbol, version of each function that torch's libraries want of NVIDIA's."""
    for library in libraries:
        for name, version in SYMBOL.findall(read("--dyn-syms", library)):
            if NVIDIA.fullmatch(version):
                yield version, name, version
            elif prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), None):
                yield PREFIXES[prefix], name, version


def cudnn_version(folder: Path) -> tuple[int, int, int]:
    """Of the cuDNN that torch was built with: torch wants to hear the same before it looks for a GPU."""
    (metadata,) = folder.parents[1].glob("torch-*.dist-info/METADATA")
    (found,) = re.findall(r"^Requires-Dist: nvidia-cudnn-\w+==(\d+)\.(\d+)\.(\d+)", metadata.read_text(), re.MULTILINE)
    major, minor, patch = map(int, found)
    return major, minor, patch


def source(names: set[str], cudnn: tuple[int, int, int]) -> str:
    major, minor, patch = cudnn
    lines = [f'static const char *const message = "{MESSAGE}";']
    for name in sorted(names):
        if TEXTS.fullmatch(name):
            lines.append(f"const char *{name}(void) {{ return message; }}")
        elif name == "cudnnGetVersion":
            lines.append(f"unsigned long {name}(void) {{ return {major * 10_000 + minor * 100 + patch}; }}")
        elif name == "cudnnGetProperty":
            lines.append(
                f"int {name}(int part, int *to) {{ *to = (const int[]){{{major}, {minor}, {patch}}}[part]; return 0; }}"
            )
        else:
            lines.append(f"int {name}(void) {{ return {NO_DRIVER}; }}")
    return "\n".join(lines)


def main(folder: Path, kept: Path) -> None:
    """Write the stubs beside torch's libraries, and a copy into ``kept``."""
    kept.mkdir()
    libraries = sorted(folder.glob("*.so"))
    symbols: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for library, name, version in wanted(libraries):
        symbols[library][version].add(name)
    cudnn = cudnn_version(folder)
    with tempfile.TemporaryDirectory() as scratch:
        for library in sorted(needed(libraries)):
            build(library, symbols[library], cudnn, Path(scratch), folder / library)
            shutil.copy(folder / library, kept)


def build(library: str, versions: dict[str, set[str]], cudnn: tuple[int, int, int], scratch: Path, to: Path) -> None:
    """``versions``: the names that torch wants, by their version; "" for those without."""
    names: set[str] = set().union(*versions.values())
    code, script = scratch / "stub.c", scratch / "stub.map"
    code.write_text(source(names, cudnn))
    named = {version: found for version, found in versions.items() if version}
    script.write_text("".join(f"{one} {{ global: {'; '.join(sorted(found))}; }};\n" for one, found in named.items()))
    options = [f"-Wl,--version-script={script}"] if named else []
    command = ["cc", "-shared", "-fPIC", "-Os", "-s", "-w", "-nostdlib", f"-Wl,-soname,{library}", *options]
    subprocess.run([*command, "-o", to, code], check=True)
    print(library, len(names), "functions")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
