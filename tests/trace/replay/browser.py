"""A page in a real browser, and what JavaScript finds in it."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr")
REPORT = """<pre id="report"></pre><script>
document.getElementById("report").textContent = JSON.stringify((() => { %s })());
</script></body>"""


def found_in(page, folder, script, place=""):
    """What the script returns inside the page, opened at that place; the console stays empty."""
    if BROWSER is None:
        pytest.skip("no Chromium here")
    path = folder / "replay.html"
    path.write_text(page.replace("</body>", REPORT % script), encoding="utf-8")
    command = [BROWSER, *OPTIONS, "--dump-dom", f"file://{path}{place}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    return json.loads(unescape(re.search(r'<pre id="report">(.*?)</pre>', done.stdout, re.S)[1]))
