"""Pages in a real headless Chromium: what a page writes to the console, and what a script in it sees."""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or ("/usr/bin/chromium" if Path("/usr/bin/chromium").exists() else None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium")

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND"]
FLAGS += ["--enable-logging=stderr", "--dump-dom"]

# Drawings, and what else any page is asked; the steps of a page's own test come before what is read last.
PROBE = """
<script>
const all = (selector) => [...document.querySelectorAll(selector)];
const order = (table, cell) => all(`#${table} tbody tr`).map((row) => row.cells[cell].innerText);
const press = (table, cell) => all(`#${table} thead button`)[cell].click();
const states = (table) => all(`#${table} thead th`).map((head) => head.getAttribute("aria-sort"));
const found = { drawings: [], orders: {}, states: {} };
for (const svg of all("svg")) {
  const box = svg.getBoundingClientRect();
  const wide = (shape) => shape.getBoundingClientRect().width > 1;
  const outside = [...svg.querySelectorAll("text")].filter((text) => {
    const at = text.getBoundingClientRect();
    const beside = at.left < box.left - 1 || at.right > box.right + 1;
    return beside || at.top < box.top - 1 || at.bottom > box.bottom + 1;
  });
  found.drawings.push({
    name: svg.closest("figure").id,
    shown: box.width > 0,
    width: box.width,
    shapes: [...svg.querySelectorAll("path, use")].filter(wide).length,
    outside: outside.map((text) => text.textContent),
    label: svg.getAttribute("aria-label"),
  });
}
STEPS
found.requests = performance.getEntriesByType("resource").map((entry) => entry.name);
found.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
found.ink = getComputedStyle(document.querySelector("svg text")).fill;
found.paper = getComputedStyle(document.body).backgroundColor;
document.documentElement.dataset.found = JSON.stringify(found);
</script>
"""


def opened(path, profile, *flags):
    """The page's DOM after its scripts ran, and what it wrote to the console."""
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *flags, path.as_uri()]
    environment = os.environ | {"DBUS_SESSION_BUS_ADDRESS": "disabled:"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment)
    return done.stdout, re.findall(r":CONSOLE[:(]\d+\)?\] (.*)", done.stderr)


def probed(page, tmp_path, steps, *flags):
    """What the probe with a page's own steps finds; the page's policy, which forbids it, is taken out."""
    text, removed = re.subn(
        r"<meta http-equiv=.Content-Security-Policy[^>]*>", "", page.read_text(encoding="utf-8")
    )
    assert removed == 1
    copy = tmp_path / "probed.html"
    copy.write_text(text.replace("</body>", PROBE.replace("STEPS", steps) + "</body>"), encoding="utf-8")
    dom, console = opened(copy, tmp_path / "profile", *flags)
    assert console == []
    return json.loads(html.unescape(re.search(r'data-found="([^"]*)"', dom)[1]))
