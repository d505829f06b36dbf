"""Reading pages of results: as text, and in a browser where there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

#: Elements that have no end.
VOID = {"meta", "img", "br", "link", "input", "hr"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
NO_CHROMIUM = "no chromium and no google-chrome on PATH"


class Page(HTMLParser):
    """Reads a page and keeps its elements; what is not closed in order is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> ends nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]

    @property
    def text(self) -> str:
        return "".join(self.words)


#: Runs in a page around frames that show the page under test, and logs what it finds of each.
_MEASURE = """
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map((frame) => {
    const inner = frame.contentDocument, root = inner.documentElement;
    const boxes = [...inner.querySelectorAll(".scroll, .wide")];
    const pictures = [...inner.images, ...inner.querySelectorAll("svg.plot")];
    return {
      page: root.scrollWidth, window: root.clientWidth,
      scrolling: boxes.filter((box) => box.scrollWidth > box.clientWidth).length,
      widest: Math.max(...[...inner.images].map((image) => image.width), 0),
      broken: [...inner.images].filter((image) => !image.naturalWidth).length,
      empty: pictures.filter((picture) => picture.getBoundingClientRect().height < 50).length,
      pictures: pictures.length,
      tables: inner.querySelectorAll("table").length,
      headings: [...inner.querySelectorAll("h2")].map((h) => h.innerText),
      requests: frame.contentWindow.performance.getEntriesByType("resource").length,
    };
  });
  document.body.textContent = "measured " + JSON.stringify(found) + " end";
  console.log("the page around them was heard");
});
"""


def in_browser(page: Path, widths_px: tuple[int, ...], scratch: Path) -> list[dict[str, Any]]:
    """What a browser without a screen makes of a page's file, at each width.

    A window of a browser cannot be as narrow as a telephone, a frame in it can. Fails if the page
    says anything on the browser's console.
    """
    frames = "".join(
        f'<iframe src="{page.as_uri()}" style="width: {width}px; height: 800px; border: 0">'
        "</iframe>"
        for width in widths_px
    )
    outer = scratch / "outer.html"
    outer.write_text(f"<!DOCTYPE html><body><script>{_MEASURE}</script>{frames}</body>")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += ["--no-first-run", "--disable-background-networking", "--disable-sync"]
    command += ["--disable-component-update", "--allow-file-access-from-files"]
    command += ["--enable-logging=stderr", f"--user-data-dir={scratch / 'profile'}"]
    command += ["--virtual-time-budget=5000", "--dump-dom", outer.as_uri()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    assert len(console) == 1, result.stderr[-2000:]
    assert "the page around them was heard" in console[0]
    found = re.search(r"measured (\[.*\]) end", result.stdout)
    assert found is not None, result.stderr[-2000:]
    measured: list[dict[str, Any]] = json.loads(found.group(1))
    return measured
