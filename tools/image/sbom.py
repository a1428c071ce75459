"""What is installed in this image, as CycloneDX JSON: Python distributions and Debian packages, each with its licence.

Runs in the image's build, on the Python of the image and nothing else; it tells what is there, not what a lock wanted.
No time and no random number is in it: the same content gives the same file.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

Component = dict[str, Any]
OS_RELEASE = Path("/etc/os-release")
COPYRIGHTS = Path("/usr/share/doc")
CLASSIFIER = "License :: "
# The short name of a licence in a copyright file; in some a whole text stands there.
LICENCE = re.compile(r"^License:[ \t]*([A-Za-z0-9]\S*(?: \S+){0,5})$", re.MULTILINE)


def python_components(beside: list[str]) -> Iterator[Component]:
    """Of this Python, and of folders that only some processes import from; a name may be there in two versions."""
    for found in importlib.metadata.distributions(path=[*sys.path, *beside]):
        name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
        yield component("pypi", name, found.version, python_licence(found))


def python_licence(found: importlib.metadata.Distribution) -> str:
    """The expression of PEP 639, else the field, else the classifiers; many have a whole text in the field."""
    metadata = found.metadata
    classifiers = [one for one in metadata.get_all("Classifier") or () if one.startswith(CLASSIFIER)]
    short = [one for one in (metadata.get("License-Expression"), metadata.get("License")) if one and len(one) < 100]
    named = [one.strip() for one in short if one.strip().upper() not in ("", "UNKNOWN", "LICENSE", "NONE")]
    if named:
        return named[0]
    told = " AND ".join(sorted(one.rsplit(" :: ", 1)[-1] for one in classifiers if one != "License :: OSI Approved"))
    return told or first_line(found)


def first_line(found: importlib.metadata.Distribution) -> str:
    """Of the licence's text in the metadata or among the files: its title."""
    texts = [found.metadata.get("License") or ""]
    texts += [
        found.read_text(name) or "" for name in ("LICENSE", "LICENSE.txt", "licenses/LICENSE", "licenses/LICENSE.txt")
    ]
    titles = (line.strip(" #*\t") for text in texts for line in text.splitlines()[:5])
    return next((title for title in titles if re.search("licen[cs]e", title, re.IGNORECASE)), "")


def debian_components() -> Iterator[Component]:
    asked = "${Package}\t${Version}\t${Architecture}\t${db:Status-Status}\n"
    vendor, release = distribution(OS_RELEASE.read_text())
    listed = subprocess.run(["dpkg-query", "-W", "-f", asked], check=True, capture_output=True, text=True).stdout
    for line in listed.splitlines():
        name, version, architecture, status = line.split("\t")
        if status == "installed":
            qualifiers = f"?arch={architecture}&distro={release}"
            yield component("deb", name, version, debian_licence(name), f"{vendor}/", qualifiers)


def debian_licence(package: str) -> str:
    """Names in the package's copyright file, of which Debian wants one in each package."""
    file = COPYRIGHTS / package / "copyright"
    text = file.read_text(errors="replace") if file.exists() else ""
    names = sorted(set(LICENCE.findall(text)), key=lambda name: (name.lower(), name))
    return " AND ".join(names) or ("see its copyright file" if text else "")


def distribution(text: str) -> tuple[str, str]:
    """Of an os-release: its name and release, such as debian and debian-12. By both a scanner finds what is known."""
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    name, release = (fields.get(field, "").strip('"') for field in ("ID", "VERSION_ID"))
    return name, f"{name}-{release}" if release else name


def component(kind: str, name: str, version: str, licence: str, namespace: str = "", qualifiers: str = "") -> Component:
    purl = f"pkg:{kind}/{namespace}{quote(name)}@{quote(version, safe='')}{qualifiers}"
    told = {"licenses": [{"license": {"name": licence}}]} if licence else {}
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, **told}


def bill(name: str, version: str, base: str, beside: list[str]) -> dict[str, Any]:
    found = {one["purl"]: one for one in (*python_components(beside), *debian_components())}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {"type": "container", "bom-ref": name, "name": name, "version": version},
            "properties": [{"name": "llm-operator:base-image", "value": base}],
        },
        "components": [found[purl] for purl in sorted(found)],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("version")
    parser.add_argument("base", help="what the image was built from, as the build was told")
    parser.add_argument("--beside", action="append", default=[], help="a folder of libraries that is not on the path")
    given = parser.parse_args()
    print(json.dumps(bill(given.name, given.version, given.base, given.beside), indent=1, ensure_ascii=False))
