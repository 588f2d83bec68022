"""What MkDocs does not do by itself: lists made from the code, and links that lead out of `docs/`.

Belongs here: hooks of `mkdocs.yml`. Does not belong here: what a page says. A link to the repository's files
becomes the file's name, for the site has no copy of it; one that leads nowhere fails the build.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import yaml
from mkdocs.exceptions import PluginError

REPOSITORY: Final = Path(__file__).resolve().parents[1]
DOCS: Final = REPOSITORY / "docs"

_LINK: Final = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")
_LIST: Final = re.compile(r"<!-- list: ([a-z ]+) -->")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """The page with its lists, and links that the site can follow."""
    path = DOCS / page.file.src_uri
    listed = _LIST.sub(lambda found: _list(found[1], path), markdown)
    return _LINK.sub(lambda found: _link(found, path), listed)


def _link(found: re.Match[str], page: Path) -> str:
    text, target = found[1], found[2].partition("#")[0]
    if not target or "://" in target or target.startswith("mailto:"):
        return found[0]
    file = (page.parent / target).resolve()
    if not file.exists():
        raise PluginError(f"{page.relative_to(REPOSITORY)} links to {found[2]}, which is not there")
    if file.is_relative_to(DOCS) and file.is_file():
        return found[0]
    name = str(file.relative_to(REPOSITORY))
    return f"`{name}`" if text.strip("`") == name else f"{text} (`{name}`)"


def _list(name: str, page: Path) -> str:
    made: Callable[[Path], Iterable[str]] | None = LISTS.get(name)
    if made is None:
        raise PluginError(
            f"{page.relative_to(REPOSITORY)} asks for a list {name!r}; there are {sorted(LISTS)}"
        )
    lines = list(made(page))
    if not lines:
        raise PluginError(f"{page.relative_to(REPOSITORY)}: the list {name!r} is empty")
    return "\n".join(lines)


def _pages(index: Path) -> Iterable[str]:
    for page in sorted(index.parent.glob("*.md")):
        if page != index:
            title = page.read_text("utf-8").splitlines()[0].removeprefix("# ")
            yield f"- [{title}]({page.name})"


def _make(_: Path) -> Iterable[str]:
    command = ["make", "--no-print-directory", "help"]
    text = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout  # noqa: S603
    yield from ("| target | |", "|---|---|")
    for line in text.splitlines():
        target, _, said = line.strip().partition(" ")
        yield f"| `make {target}` | {said.strip()} |"


def _gateway_metrics(_: Path) -> Iterable[str]:
    from serving.gateway.request_context import Metrics

    yield from ("| metric | kind | what |", "|---|---|---|")
    for metric in Metrics().registry.collect():
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        yield f"| `{name}` | {metric.type} | {metric.documentation} |"


def _model_server_metrics(_: Path) -> Iterable[str]:
    from serving.model_server.metrics import Metrics

    yield from ("| metric | kind |", "|---|---|")
    for metric in vars(Metrics()).values():
        yield f"| `{metric.name}` | {type(metric).__name__.lower()} |"


def _airflow_metrics(_: Path) -> Iterable[str]:
    mapping = yaml.safe_load((REPOSITORY / "serving/observability/statsd_mapping.yml").read_text("utf-8"))
    for rule in mapping["mappings"]:
        if rule.get("action") != "drop":
            yield f"- `{rule['name']}`, from `{rule['match']}`"


LISTS: Final[dict[str, Callable[[Path], Iterable[str]]]] = {
    "airflow metrics": _airflow_metrics,
    "gateway metrics": _gateway_metrics,
    "make": _make,
    "model server metrics": _model_server_metrics,
    "pages": _pages,
}
