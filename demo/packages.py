"""The Debian packages that the demo's text comes from, and how their files and licences are read.

Packages are chosen by name; the version is the one that the machine's package index offers, and is recorded. Nothing is
installed: a package is downloaded, checked against the index's sha256, and read in place.
"""

import functools
import gzip
import hashlib
import io
import re
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Source:
    """One language's pages in one package."""

    package: str
    work: str  # the document's name, the same in every language
    language: str  # ISO 639-1
    domain: str
    pages: str  # a regular expression; its group is the page's name, the same in every language


_NAME = r"((?!index|genindex|search|ix|pt)[\w.-]+)"  # of a page that is not a list of pages
_GUIDE = r"((?:ch|ap[a-e]|pr)\d*\w*)"  # without the appendix that is the GPL's text
# The folder 00 holds fragments that other pages embed, and three glossaries.
_HELP = r"((?:(?!.*/00/)|(?=shared/00/0000000[125]))[a-z]+/.+)"

SOURCES = (
    Source("debian-reference-en", "debian-reference", "en", "manual", r"/debian-reference/(ch\d+)\.en\.html"),
    Source("debian-reference-ja", "debian-reference", "ja", "manual", r"/debian-reference/(ch\d+)\.ja\.html"),
    Source("debian-handbook", "debian-handbook", "en", "manual", rf"/html/en-US/{_NAME}\.html"),
    Source("debian-handbook", "debian-handbook", "ja", "manual", rf"/html/ja-JP/{_NAME}\.html"),
    Source("developers-reference", "developers-reference", "en", "manual", rf"/developers-reference/{_NAME}\.html"),
    Source("developers-reference-ja", "developers-reference", "ja", "manual", rf"/ja/{_NAME}\.html"),
    Source("debian-faq", "debian-faq", "en", "manual", rf"/FAQ/{_NAME}\.en\.html"),
    Source("debian-faq-ja", "debian-faq", "ja", "manual", rf"/FAQ/ja/{_NAME}\.ja\.html"),
    Source("installation-guide-amd64", "installation-guide", "en", "manual", rf"/en/{_GUIDE}\.html"),
    Source("installation-guide-amd64", "installation-guide", "ja", "manual", rf"/ja/{_GUIDE}\.html"),
    Source("maint-guide", "maint-guide", "en", "manual", rf"/html/{_NAME}\.en\.html"),
    Source("maint-guide-ja", "maint-guide", "ja", "manual", rf"/html/{_NAME}\.ja\.html"),
    Source("aptitude-doc-en", "aptitude", "en", "manual", rf"/html/en/{_NAME}\.html"),
    Source("aptitude-doc-ja", "aptitude", "ja", "manual", rf"/html/ja/{_NAME}\.html"),
    Source("libreoffice-help-en-us", "libreoffice-help", "en", "office", rf"/en-US/text/{_HELP}\.html"),
    Source("libreoffice-help-ja", "libreoffice-help", "ja", "office", rf"/ja/text/{_HELP}\.html"),
)

# All let anyone copy, change and redistribute, for any purpose.
LICENCES = {"GPL-2", "GPL-2+", "GPL-2.0+", "GPL-2.0+ or CC-BY-SA-3.0", "MPL-2.0", "LicenseRef-SPI-documentation"}
# What a copyright file that is not machine-readable says in words.
_LICENCE_WORDS = {
    "licensed under the terms of the GNU GPL, version 2.": "GPL-2",
    (
        "Permission is granted to copy and distribute modified versions of this document under the conditions for "
        "verbatim copying, provided that the entire resulting derived work is distributed under the terms of a "
        "permission notice identical to this one."
    ): "LicenseRef-SPI-documentation",
}


class PackageError(Exception):
    """A package can't be had, or isn't what it is said to be."""


@dataclass(frozen=True, slots=True)
class Package:
    """One version of a package, as the package index has it."""

    name: str
    version: str
    file: str
    sha256: str


def find_packages(names: set[str]) -> dict[str, Package]:
    """The versions that the machine's package index offers; the index is fetched where it lacks one.

    Raises:
        PackageError: a package is in no index.

    """
    found = _indexed(names)
    if names - found.keys():
        subprocess.run(["apt-get", "update", "--quiet"], capture_output=True, check=False)
        found = _indexed(names)
    if missing := names - found.keys():
        raise PackageError(
            f"the package index does not have {', '.join(sorted(missing))}: the demo's text comes from Debian 12 "
            "(bookworm); on such a machine `apt-get update` as root must succeed"
        )
    return found


def _indexed(names: set[str]) -> dict[str, Package]:
    command = ["apt-cache", "show", "--no-all-versions", *sorted(names)]
    stanzas = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split("\n\n")
    fields = (dict(re.findall(r"^([\w-]+): (.*)$", stanza, re.MULTILINE)) for stanza in stanzas if stanza.strip())
    packages = (Package(f["Package"], f["Version"], Path(f["Filename"]).name, f["SHA256"]) for f in fields)
    return {package.name: package for package in packages}


def download(package: Package, folder: Path) -> Path:
    """The package's file in `folder`, downloaded unless it is there, and checked.

    Raises:
        PackageError: it can't be downloaded, or its sha256 is not the index's.

    """
    # apt-get writes the version's colon as %3a; the index leaves the epoch out.
    architecture = package.file.rsplit("_", 1)[1]
    path = folder / f"{package.name}_{package.version.replace(':', '%3a')}_{architecture}"
    if not path.exists():
        command = ["apt-get", "download", "-o", "APT::Sandbox::User=root", f"{package.name}={package.version}"]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if run.returncode:
            raise PackageError(f"{package.name}={package.version} can't be downloaded: {run.stderr.strip()}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != package.sha256:
        path.unlink()
        raise PackageError(
            f"{path.name} has sha256 {digest}, not the index's {package.sha256}: it was removed; run again"
        )
    return path


def read_files(deb: Path, pattern: str) -> Iterator[tuple[str, str]]:
    """The path and the text of the files whose path ends in what `pattern` matches, by path; `.gz` is unpacked."""
    expression = re.compile(rf"(?:{pattern})(?:\.gz)?$")
    with tarfile.open(fileobj=io.BytesIO(_archive(deb))) as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            content = archive.extractfile(member) if member.isfile() and expression.search(member.name) else None
            if content:
                data = content.read()
                yield member.name, (gzip.decompress(data) if member.name.endswith(".gz") else data).decode()


@functools.lru_cache(maxsize=1)  # one package is read for its licence and each of its languages
def _archive(deb: Path) -> bytes:
    return subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], capture_output=True, check=True).stdout


def read_licence(package: str, copyright_file: str) -> str:
    """The licence of a package's documents: what its copyright file says of `Files: *`, or in words.

    Raises:
        PackageError: the file names none, or one that is not among `LICENCES`.

    """
    whole = re.search(r"^Files:\s*\*\s*$(?:.*\n)*?^License:\s*(.+)$", copyright_file, re.MULTILINE)
    if whole:
        licence = whole[1].strip()
    else:
        words = " ".join(copyright_file.split())
        licence = next((name for sentence, name in _LICENCE_WORDS.items() if sentence in words), "unknown")
    if licence not in LICENCES:
        raise PackageError(
            f"{package}: the licence is {licence!r}, not one of {sorted(LICENCES)}; read its copyright file first"
        )
    return licence
