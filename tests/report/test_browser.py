"""The page in a real browser: no errors, all images, soon there, small, and cases can be pointed at by keyboard."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from results_example import add_model, write_study

from factorizer_nnunet.report import Sources, write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
TRIES = 3  # to paint in time: the machine may be busy

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here to open the page with")

WATCH = """<script>
const problems = [];
addEventListener("error", event => problems.push(event.message ?? "a resource failed"), true);
addEventListener("securitypolicyviolation", event => problems.push("blocked: " + event.blockedURI));
for (const kind of ["error", "warn"]) console[kind] = (...words) => problems.push(words.join(" "));
</script>"""
LOOK = """<script>
addEventListener("load", async () => {
  const images = [...document.images];
  images.forEach(image => { image.loading = "eager"; });
  await Promise.all(images.map(image => image.decode().catch(() => null)));
  const svg = document.querySelector("svg:has([data-c])");
  const press = key => svg.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  press("ArrowRight");
  const told = document.getElementById("tip").textContent;
  const marked = document.querySelectorAll("svg circle.hot").length;
  press("Enter");
  const kept = document.getElementById("kept").textContent;
  const find = document.getElementById("find");
  find.value = "blob_007";
  find.dispatchEvent(new Event("input"));
  const found = document.querySelector("#kept b").textContent;
  const head = document.querySelector("#table ~ * table.sortable th:nth-child(3) button");
  head.click();
  const column = [...head.closest("table").tBodies[0].rows].map(row => parseFloat(row.cells[2].textContent));
  await new Promise(done => setTimeout(done, 300));
  const paint = performance.getEntriesByType("paint").find(entry => entry.name === "first-contentful-paint");
  const seen = { problems, images: images.length, broken: images.filter(image => !image.naturalWidth).length,
    told, marked, kept, found, column, paint: paint ? paint.startTime : null,
    requests: performance.getEntriesByType("resource").filter(entry => !entry.name.startsWith("data:")).length };
  const output = document.createElement("pre");
  output.id = "seen"; output.textContent = JSON.stringify(seen);
  document.body.append(output);
});
</script>"""


@dataclass(frozen=True)
class Seen:
    """What the browser saw, and the page's size."""

    facts: dict
    megabytes: float


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """A report of two models on 100 cases, opened until it was painted in time or the tries are over."""
    folder = tmp_path_factory.mktemp("browser")
    study = write_study(folder / "study", 100)
    models = [add_model(study, trainer, wear) for trainer, wear in (("nnUNetTrainer", 0.5), ("nnUNetTrainerB", 0.3))]
    write_report(models, folder / "report.html", sources=Sources(environment=study.environment))
    text = (folder / "report.html").read_text(encoding="utf-8")
    watched = text.replace('<meta name="viewport"', WATCH + '<meta name="viewport"', 1)
    (folder / "watched.html").write_text(watched.replace("</body>", LOOK + "</body>"), encoding="utf-8")
    facts: dict = {}
    for number in range(TRIES):
        facts = look_at(folder / "watched.html", folder / f"profile_{number}")
        if facts["paint"] is not None and facts["paint"] < 2000:
            break
    return Seen(facts, (folder / "report.html").stat().st_size / 1e6)


def look_at(page: Path, profile: Path) -> dict:
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "--timeout=20000", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, f"the page's scripts did not end well: {done.stderr[-2000:]}"
    return json.loads(html.unescape(found[1]))


def test_there_are_no_errors_and_nothing_is_requested(seen: Seen) -> None:
    assert seen.facts["problems"] == []
    assert seen.facts["requests"] == 0


def test_all_images_are_there(seen: Seen) -> None:
    assert seen.facts["images"] == 12 * 3 * 4
    assert seen.facts["broken"] == 0


def test_a_page_of_100_cases_is_small_and_soon_painted(seen: Seen) -> None:
    assert seen.megabytes < 15
    assert seen.facts["paint"] < 2000


def test_cases_are_pointed_at_by_keyboard_and_by_name(seen: Seen) -> None:
    assert re.match(r"blob_\d{3}.+: \d\.\d{3}", seen.facts["told"])
    assert seen.facts["marked"] > 1  # the same case in other figures, too
    assert re.match(r"blob_\d{3}numbers", seen.facts["kept"])
    assert seen.facts["found"] == "blob_007"


def test_the_table_of_cases_sorts_by_number(seen: Seen) -> None:
    numbers = [value for value in seen.facts["column"] if value is not None]
    assert len(numbers) > 90 and numbers == sorted(numbers)
