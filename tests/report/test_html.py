"""The page: self-contained, inert to hostile text, and alive in a real browser."""

import html.parser
import json
import re
import shutil
import subprocess

import pytest
from fake_runs import HOSTILE, make_run, write_rows

from infimmr_jax.report.html import write_report
from infimmr_jax.report.page_data import embed_json
from infimmr_jax.report.reading import ReportError

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Elements(html.parser.HTMLParser):
    """Every start tag with its attributes, as a browser would see them."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory):
    """A run in which every text a model or a data set can supply tries to become markup."""
    directory = make_run(tmp_path_factory.mktemp("hostile") / "run", steps=6, sft_steps=50)
    rows = [json.loads(line) for line in (directory / "transcripts.jsonl").read_text().splitlines()]
    for row in rows:
        row |= dict.fromkeys(("question", "caption", "answer", "prompt", "problem_id", "modality"), HOSTILE)
        row["choices"] = [HOSTILE]
        for one in row["responses"]:
            one |= {"text": HOSTILE, "tokens": [HOSTILE, "\ud83d"], "logprobs": [-1.0, None], "extracted": HOSTILE}
            one |= {"reason": HOSTILE, "components": {"accuracy": 1.0, HOSTILE: 0.0}}
    write_rows(directory / "transcripts.jsonl", rows)
    for name in ("metrics", "evals"):
        text = (directory / f"{name}.jsonl").read_text()
        (directory / f"{name}.jsonl").write_text(text.replace("3 image alone", json.dumps(HOSTILE)[1:-1]))
    (directory / "environment.json").write_text(json.dumps({HOSTILE: HOSTILE}))
    return directory


def test_the_page_is_one_file_that_loads_nothing(tmp_path):
    out = write_report([make_run(tmp_path / "run", steps=20)], tmp_path / "deep" / "report.html")
    page = out.read_text()
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
    elements = Elements(page).found
    assert not any(tag in ("link", "iframe", "object", "embed", "base") for tag, _ in elements)
    assert not any(key in ("src", "srcset", "action") for _, attributes in elements for key in attributes)
    assert all(attributes["href"].startswith("#") for tag, attributes in elements if tag == "a")
    assert not re.search(r"url\(|@import", page)
    assert out.stat().st_size < 1_000_000


def test_results_stand_in_the_page_itself(tmp_path):
    page = write_report([make_run(tmp_path / "run", steps=6)], tmp_path / "report.html").read_text()
    for words in ("19.9 → 55.9%", "15.5–25.2", "+35.9 points", "256 problems", "format 96%", "finished: 18 steps"):
        assert words in page
    for words in ("optimizer:", "jax", "0.10.2", "cpu:0"):
        assert words in page


def test_hostile_text_stays_text(hostile_run, tmp_path):
    page = write_report([hostile_run], tmp_path / "report.html").read_text()
    elements = Elements(page).found
    assert [tag for tag, _ in elements].count("script") == 3
    assert not any(tag == "img" or key.startswith("on") for tag, attributes in elements for key in attributes)
    assert "{{ 7*7 }}" in page
    assert "window.hacked=1</script>" not in page
    policy = next(attributes["content"] for tag, attributes in elements if "content" in attributes and tag == "meta")
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2]


def test_embedded_json_can_not_end_its_element():
    value = {"text": HOSTILE + "\u2028\u2029 \ud83d"}
    text = embed_json(value)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text)["text"].startswith(HOSTILE + "\u2028\u2029 ")


def test_unfinished_and_empty_runs(tmp_path):
    directory = make_run(tmp_path / "run", steps=2, planned=9)
    for name in ("evals.jsonl", "transcripts.jsonl", "config.yaml", "environment.json"):
        (directory / name).unlink()
    with (directory / "metrics.jsonl").open("a") as file:
        file.write('{"torn')
    page = write_report([directory], tmp_path / "report.html").read_text()
    assert "1 line could not be read" in page
    assert "6 GRPO steps so far" in page
    with pytest.raises(ReportError, match="at least one run directory"):
        write_report([], tmp_path / "report.html")


def test_comparison_names_runs_apart_and_shows_what_differs(tmp_path):
    runs = [make_run(tmp_path / parent / "run", steps=3, seed=seed) for seed, parent in enumerate("ab")]
    page = write_report(runs, tmp_path / "report.html").read_text()
    assert "2 runs compared" in page
    assert ">a/run</a>" in page
    assert ">b/run</a>" in page
    assert re.search(r"<th>seed</th><td>0</td><td>1</td>", page)


def browse(page, width, tmp_path, *flags):
    """The page's DOM after its scripts ran, with what the browser said on its console."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += [
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
    ]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", "--virtual-time-budget=5000"]
    command += ["--enable-logging=stderr", "--v=0", "--dump-dom", *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_in_a_browser_scripts_run_charts_are_drawn_and_hostile_text_is_inert(hostile_run, tmp_path):
    dom, console = browse(write_report([hostile_run], tmp_path / "report.html"), 1280, tmp_path)
    assert 'data-ready="yes"' in dom
    assert console == []
    assert dom.count("<canvas") >= 1
    assert dom.count('<article class="response') == 8
    assert "<img src=" not in dom.replace('<img alt="image of the problem" src="data:image/png', "")
    assert "&lt;/script&gt;&lt;script&gt;window.hacked=1" in dom


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_on_a_phone_nothing_is_wider_than_the_screen(tmp_path):
    runs = [make_run(tmp_path / name, steps=20) for name in ("a-long-directory-name-of-a-run", "b")]
    write_report(runs, tmp_path / "report.html")
    # Headless windows have a least width, so the phone is a frame in a page that reports the frame's sizes.
    frame = tmp_path / "phone.html"
    frame.write_text(
        '<iframe id="phone" src="report.html" style="width:390px;height:800px;border:0"></iframe><script>'
        "onload = () => setTimeout(() => { const page = document.getElementById('phone').contentDocument;"
        "document.title = page.documentElement.scrollWidth + ' ' + page.documentElement.dataset.ready; }, 1000);"
        "</script>"
    )
    dom, _ = browse(frame, 800, tmp_path, "--allow-file-access-from-files")
    assert "<title>390 yes</title>" in dom


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_on_paper_every_chart_is_drawn_at_the_width_of_the_paper(tmp_path):
    write_report([make_run(tmp_path / "run", steps=20)], tmp_path / "report.html")
    frame = tmp_path / "paper.html"
    frame.write_text(
        '<iframe id="page" src="report.html" style="width:1200px;height:700px;border:0"></iframe><script>'
        "const frame = document.getElementById('page'), told = [];"
        "const count = () => { const page = frame.contentDocument, drawn = [...page.querySelectorAll('canvas')];"
        "  const open = [...page.querySelectorAll('[data-chart]')].filter((node) => node.clientWidth);"
        "  told.push(drawn.length > 3 && drawn.length === open.length, drawn.every((one) => one.clientWidth < 700)); };"
        "onload = () => setTimeout(() => { count(); frame.contentWindow.dispatchEvent(new Event('beforeprint'));"
        "  setTimeout(() => { count(); document.title = told.join(' '); }, 200); }, 800);</script>"
    )
    dom, _ = browse(frame, 1300, tmp_path, "--allow-file-access-from-files")
    # On the screen the charts further down wait for a reader.
    assert re.search("<title>false (true|false) true true</title>", dom)
