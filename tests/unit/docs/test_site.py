"""Every page is in the navigation, once, and what it links to is there. Anchors and the built pages: tools/site.sh."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from tools import reference

from llm_operator.api.generated_files import differences
from llm_operator.api.reasons import Reason
from tests.pages import BESIDE, DOCS, LINK, REPOSITORY, SNIPPET, name_of, pages, prose

NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
CONFIGURATION = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())


def leaves(navigation: Any) -> Iterator[str]:
    if isinstance(navigation, str):
        yield navigation
    elif isinstance(navigation, dict):
        for below in navigation.values():
            yield from leaves(below)
    else:
        for below in navigation:
            yield from leaves(below)


def test_every_page_is_in_the_navigation_once() -> None:
    named = Counter(leaves(CONFIGURATION["nav"]))
    there = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert sorted(there - set(named)) == [], "each page of docs/ has a line in nav of mkdocs.yml"
    assert sorted(set(named) - there) == [], "each line in nav of mkdocs.yml has a page"
    assert [page for page, count in named.items() if count > 1] == []


def test_what_a_page_links_to_is_there() -> None:
    """On the site a page sees docs/ alone; those beside it are read in the repository."""
    lost = []
    for page in pages():
        for target in LINK.findall(prose(page)):
            path = target.partition("#")[0]
            if not path or re.match(r"[a-z]+:", path):
                continue
            file = (page.parent / path).resolve()
            if not file.exists() or (DOCS in page.parents and DOCS not in file.parents):
                lost.append(f"{name_of(page)}: {target}")
    assert not lost


def test_anchors_that_pages_beside_the_site_name_are_there() -> None:
    """Of docs/ itself the site's build tells."""
    lost = []
    for page in (REPOSITORY / name for name in BESIDE):
        for target in LINK.findall(prose(page)):
            path, _, anchor = target.partition("#")
            if anchor and path.endswith(".md") and anchor not in anchors((page.parent / path).read_text()):
                lost.append(f"{name_of(page)}: {target}")
    assert not lost


def anchors(text: str) -> set[str]:
    """As the site's headings have them."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_pages_that_code_names_are_there() -> None:
    named = {
        (str(file.relative_to(REPOSITORY)), page)
        for room in ("operator", "trainer_image", "kubectl_plugin", "charts", "tests", "tools", "demo", "examples")
        for file in (REPOSITORY / room).rglob("*.*")
        if file.suffix in (".py", ".yaml", ".tpl", ".sh", ".md")
        for page in re.findall(r"\bdocs/[\w/-]+\.md\b", file.read_text())
    }
    assert len(named) > 20
    assert [one for one in sorted(named) if not (REPOSITORY / one[1]).is_file()] == []


LIST, TABLE = re.compile(r"([*-]|\d+\.) \S"), re.compile(r"\|")


def test_lists_and_tables_begin_after_an_empty_line() -> None:
    """Else the site shows them as a paragraph, though other readers of Markdown don't."""
    wrong = [place for page in DOCS.rglob("*.md") for place in run_together(page)]
    assert not wrong


def run_together(page: Path) -> Iterator[str]:
    first = ""  # line of the block
    for number, line in enumerate(prose(page).splitlines(), 1):
        if not line.strip() or first.startswith("#"):
            first = ""
        if first and any(kind.match(line) and not kind.match(first) for kind in (LIST, TABLE)):
            yield f"{name_of(page)}:{number}: {line[:60]}"
        first = first or line


def test_files_that_pages_show_are_there() -> None:
    shown = {(name_of(page), name) for page in pages() for name in SNIPPET.findall(page.read_text())}
    assert len(shown) >= 10
    assert [one for one in shown if not (REPOSITORY / one[1]).is_file()] == []


def test_nothing_is_loaded_from_elsewhere() -> None:
    """Of the built site tools/site.sh looks at each page."""
    assert CONFIGURATION["theme"]["font"] is False
    assert not {"extra_javascript", "extra"} & set(CONFIGURATION)
    assert [sheet for sheet in CONFIGURATION["extra_css"] if not (DOCS / sheet).is_file()] == []


def test_generated_pages_are_in_step() -> None:
    assert not differences(reference.pages()), "run `make generate`"


def test_tests_that_pages_name_are_there() -> None:
    """A page that says which test shows something can't outlive the test."""
    named = {match for page in pages() for match in NAMED_TEST.findall(page.read_text())}
    assert len(named) > 40
    lost = [
        f"{file}::{function}"
        for file, function in sorted(named)
        if not (text := read(file))
        or (function and not re.search(rf"^\s*(async )?def {function}\(", text, re.MULTILINE))
    ]
    assert not lost


def read(file: str) -> str:
    path = REPOSITORY / file
    return path.read_text() if path.is_file() else ""


def test_troubleshooting_has_every_reason_once() -> None:
    page = (DOCS / "howto/troubleshooting.md").read_text()
    told = re.findall(r"^### (\w+)$", page, re.MULTILINE)
    missing = [reason.value for reason in Reason if reason not in told]
    assert not missing, f"howto/troubleshooting.md wants a section for each reason; it has none for {missing}"
    left = [name for name in told if name not in set(Reason) or told.count(name) > 1]
    assert not left, f"howto/troubleshooting.md has more than one section, or no reason, for {left}"
    for section in re.split(r"^### ", page, flags=re.MULTILINE)[1:]:
        assert len(section.splitlines()) > 2, section


def test_every_value_and_every_setting_is_on_its_page() -> None:
    values = yaml.safe_load((REPOSITORY / "charts/llm-operator/values.yaml").read_text())
    page = (DOCS / "reference/values.md").read_text()
    for name, value in values.items():
        inner = [f"{name}.{key}" for key in value] if isinstance(value, dict) and value else [name]
        if name in ("podSecurityContext", "securityContext", "resources"):
            continue  # Kubernetes' own
        assert [path for path in inner if f"`{path}`" not in page] == []
