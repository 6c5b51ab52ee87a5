"""The report page in a real browser: nothing hangs over the edge of a phone or a laptop, and the console is silent."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest

from foreframe.report.experiment.page import write_report
from foreframe.report.experiment.panels import Panel
from foreframe.video.write import encode_gif
from tests.report.test_experiment import DIAGNOSIS, made, replace

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), "")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not BROWSER, reason="no chromium, chromium-browser or google-chrome on this machine"),
]
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--allow-file-access-from-files",
    "--enable-logging=stderr",
    "--virtual-time-budget=3000",
)
# A frame of its own is as narrow as it is made; a headless window is not.
FRAME = """<!DOCTYPE html><iframe id="page" src="{page}" style="width: {width}px; height: 900px; border: 0"></iframe>
<script>
addEventListener("load", () => {{
  const frame = document.getElementById("page"), root = frame.contentDocument.documentElement;
  const over = [...root.querySelectorAll("figure, .table, p, h1, h2, h3, svg, img")]
    .filter(part => part.getBoundingClientRect().right > root.clientWidth + 1 && !part.closest(".scroll"));
  document.title = [root.scrollWidth, frame.contentWindow.innerWidth, over.length,
    root.querySelectorAll("svg").length, getComputedStyle(frame.contentDocument.body).backgroundColor].join("|");
}});
</script>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    gif = encode_gif(np.zeros((3, 370, 290, 3), np.uint8), 10)
    rows = [{"step": step, "loss": 1 / step, "beta": 0.1, "forcing": 0.5} for step in (10, 20)]
    runs = [
        made(name, gain, beta=gain, key=number, cond="image", rows=rows)
        for number, (name, gain) in enumerate({"plain": 0.0, "a-very-long-name-" * 8: 1.0}.items())
    ]
    panels = (Panel("clip", {"best": 20.0}, 3, 60, gif),)
    write_report([replace(run, diagnosis=DIAGNOSIS, panels=panels) for run in runs], out, "Title " * 12)
    return out


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_hangs_over_the_edge_and_the_console_is_silent(folder, tmp_path, width, scheme):
    frame = folder / f"frame-{width}.html"
    frame.write_text(FRAME.format(page="index.html", width=width))
    colours = ("--blink-settings=preferredColorScheme=0",) if scheme == "dark" else ()
    command = [BROWSER, *FLAGS, *colours, f"--user-data-dir={tmp_path}", "--window-size=1600,1000", "--dump-dom"]
    done = subprocess.run(
        [*command, frame.as_uri()], capture_output=True, text=True, errors="replace", check=True, timeout=120
    )
    title = re.search(r"<title>([^<]*)</title>", done.stdout)
    assert title, done.stdout[-500:]
    wide, inner, over, figures, paper = title[1].split("|")
    assert int(inner) == width
    assert int(wide) <= int(inner)
    assert int(over) == 0
    assert int(figures) == 7
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 23, 27)"}[scheme]
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert complaints == []
