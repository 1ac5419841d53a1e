"""One self-contained HTML page about one or several runs."""

from __future__ import annotations

import base64
import datetime
import hashlib
import importlib.resources
from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from infimmr_jax.files import replace_file
from infimmr_jax.report.charts import comparison_charts, run_charts
from infimmr_jax.report.page_data import Json, embed_json
from infimmr_jax.report.reading import MODALITIES, ReportError, Run, config_differences, read_run
from infimmr_jax.report.tables import comparison_table, health_notes, results_table, setup_rows, status, tiles
from infimmr_jax.report.transcripts import BUDGET_BYTES, distributions, pack_transcripts


def write_report(run_dirs: Sequence[Path], out: Path) -> Path:
    """Write the report of one or several run directories to the file `out` and return it.

    The page holds everything it shows (about 0.2 MB and at most 4 MB of transcripts with their pictures) and loads
    nothing; a content security policy with the hashes of its own scripts keeps text from responses inert. Runs may be
    unfinished. Raises ReportError when a directory holds no run.
    """
    if not run_dirs:
        raise ReportError("give at least one run directory")
    runs = [read_run(Path(directory)) for directory in run_dirs]
    names = _distinct_names(runs)
    charts = [run_charts(run) for run in runs]
    packed = [pack_transcripts(run, BUDGET_BYTES // len(runs)) for run in runs]
    compared = comparison_charts(runs, names) if len(runs) > 1 else []
    data = {
        "runs": [
            {"charts": run_charts, "transcripts": items} for run_charts, items in zip(charts, packed, strict=True)
        ],
        "comparison": compared,
    }
    templates = importlib.resources.files("infimmr_jax.report") / "templates"
    static = importlib.resources.files("uplot.static")
    scripts = [
        _inert((static / "uPlot.iife.js").read_text(encoding="utf-8")),
        _inert((templates / "report.js").read_text(encoding="utf-8")),
    ]
    styles = [(static / "uPlot.min.css"), (templates / "report.css")]
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((templates / "report.html.j2").read_text(encoding="utf-8"))
    several = len(runs) > 1
    page = template.render(
        title=f"{len(runs)} runs compared" if several else names[0],
        subtitle=", ".join(names) if several else status(runs[0]),
        css=Markup("\n".join(style.read_text(encoding="utf-8") for style in styles)),
        script_hashes=Markup(" ".join(f"'sha256-{_hash(script)}'" for script in scripts)),
        chart_library=Markup(scripts[0]),
        script=Markup(scripts[1]),
        data=Markup(embed_json(data)),
        library="uPlot, MIT licence",
        navigation=_navigation(runs, names, packed),
        comparison={**comparison_table(runs, names), "charts": compared, "differences": config_differences(runs)}
        if several
        else None,
        runs=[
            _run_view(run, name, chart, items)
            for run, name, chart, items in zip(runs, names, charts, packed, strict=True)
        ],
        made_at=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )
    # A browser that has the page open never loads half of it.
    replace_file(Path(out), page)
    return Path(out)


def _run_view(run: Run, name: str, charts: Json, packed: Json) -> Json:
    """Everything the template shows of one run."""
    items = packed["items"]
    present = dict.fromkeys(item["modality"] for item in items if item["modality"])
    return {
        "name": name,
        "status": status(run),
        "directory": str(run.directory.resolve()),
        "tiles": tiles(run),
        "notes": [*run.notes, *health_notes(run)],
        "table": results_table(run),
        "charts": charts,
        "distributions": distributions(run),
        "transcripts": {
            "items_count": len(items),
            "found": packed["found"],
            "left_out": packed["found"] > len(items),
            "phases": list(dict.fromkeys(str(item["phase"]) for item in items)),
            "modalities": [(value, MODALITIES.get(value, value)) for value in present],
        },
        "environment": setup_rows(run.environment),
        "config_text": run.config_text,
    }


def _navigation(runs: list[Run], names: list[str], packed: list[Json]) -> list[tuple[str, str]]:
    if len(runs) > 1:
        return [("Comparison", "compare"), *((name, f"run-{index}") for index, name in enumerate(names))]
    links = [("Results", "results-0")]
    if runs[0].grpo:
        links.append(("Curves", "curves-0"))
    if runs[0].sft:
        links.append(("Cold start", "sft-0"))
    if packed[0]["items"]:
        links.append(("Transcripts", "transcripts-0"))
    return [*links, ("Setup", "setup-0")]


def _distinct_names(runs: list[Run]) -> list[str]:
    """Directory names, with as many parent directories as are needed to tell the runs apart."""
    paths = [run.directory.resolve() for run in runs]
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(set(paths)):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in paths]


def _inert(script: str) -> str:
    if "</script" in script.lower() or "<!--" in script:
        raise ReportError("a script of the report holds text that ends a script element; it can not be inlined")
    # Browsers hash the text after newline normalisation.
    return script.replace("\r\n", "\n").replace("\r", "\n")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
