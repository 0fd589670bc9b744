"""`report.html` in Chromium, headless: pointer, keys, slider, phone, dark."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from neural.training.loop import train
from tests.training.conftest import corpus, make_run  # noqa: F401

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--virtual-time-budget=2000", "--dump-dom",
)  # fmt: skip

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here")

# Runs in the page after its own script, and leaves what it found in the document.
PROBE = """
const found = {};
const plot = document.querySelector(".plot"), output = document.querySelector("output"), box = plot.getBoundingClientRect();
plot.dispatchEvent(new PointerEvent("pointermove", {clientX: box.left + box.width * 0.5, clientY: box.top + 5}));
found.pointer = output.textContent;
plot.dispatchEvent(new PointerEvent("pointerleave"));
found.left = output.textContent;
plot.focus();
for (const key of ["Home", "ArrowRight"]) plot.dispatchEvent(new KeyboardEvent("keydown", {key}));
found.keys = output.textContent;
const shown = () => [...document.querySelectorAll(".sample")].filter(e => e.checkVisibility()).map(e => e.textContent);
found.samples = [shown()];
const slider = document.querySelector("input[type=range]");
slider.value = 0;
slider.dispatchEvent(new Event("input"));
found.samples.push(shown());
found.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
found.fetched = performance.getEntriesByType("resource").length;
const light = color => {
  const [r, g, b] = color.match(/[\\d.]+/g).map(x => (x /= 255, x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = element => {
  for (let e = element; e; e = e.parentElement) {
    const color = getComputedStyle(e).backgroundColor;
    if (!color.endsWith(", 0)")) return color;
  }
};
found.contrast = {};
for (const name of ["h1", "header p", ".facts dt", ".facts dd", "figcaption small", ".y", "summary", "td", "th",
                    ".comment", ".string", ".number", ".keyword", ".layer", ".ref"]) {
  const element = document.querySelector(name);
  if (!element) continue;
  const both = [light(getComputedStyle(element).color), light(ground(element))].sort((a, b) => b - a);
  found.contrast[name] = (both[0] + 0.05) / (both[1] + 0.05);
}
found.paper = getComputedStyle(document.body).backgroundColor;
document.body.setAttribute("data-found", JSON.stringify(found));
"""


@pytest.fixture
def look(make_run, tmp_path: Path):  # noqa: F811
    """What the probe finds in the page of a run, in a window of some width."""
    run = make_run(steps=20, sample_every=10)
    texts = iter(["first words", "last words"])
    train(run, sample=lambda model, tokenizer: next(texts))
    page = (run.path / "report.html").read_text(encoding="utf-8").replace("</body>", f"<script>{PROBE}</script></body>")
    (tmp_path / "probed.html").write_text(page, encoding="utf-8")

    def see(width: int, *flags: str) -> dict:
        places = (f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", *flags)
        command = [CHROMIUM, *FLAGS, *places, (tmp_path / "probed.html").as_uri()]
        document = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        return json.loads(unescape(re.search(r'data-found="([^"]*)"', document)[1]))

    return see


@pytest.mark.parametrize(("width", "scheme", "paper"), [(1280, 1, "rgb(255, 255, 255)"), (500, 0, "rgb(15, 20, 32)")])
def test_a_page_is_read_by_pointer_and_by_keys(look, width: int, scheme: int, paper: str) -> None:
    found = look(width, f"--blink-settings=preferredColorScheme={scheme}")
    assert re.fullmatch(r"step 10 · training \d\.\d{4} · validation \d\.\d{4}", found["pointer"])
    assert found["left"] == ""
    assert re.fullmatch(r"step 5 · training \d\.\d{4} · validation \d\.\d{4} \(step (0|10)\)", found["keys"])
    assert found["samples"] == [["step 20last words"], ["step 10first words"]]
    assert found["wide"] <= 0 and found["fetched"] == 0
    assert found["paper"] == paper
    assert min(found["contrast"].values()) >= 4.5, found["contrast"]  # WCAG 2.2, AA
