"""What a person sees in the terminal: one live bar a phase, plain lines without a terminal, the table at the end."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable

import rich.markup
import rich.progress
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infimmr_jax.names import JsonObject

MODALITIES = ("text", "caption", "image")
PLAIN_SECONDS = 10.0
_RECENT_STEPS = 20


class Progress:
    """Progress of one phase after another; use it as a context manager.

    `phase` starts a bar (and finishes the one before), `update` takes the step's metrics row, `activity` says what
    takes time outside of steps (compiling, evaluating), `note` prints a line above the bars. When the console is no
    terminal, a plain line appears every ten seconds instead of the bar.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic):
        self.console = console or Console()
        self._clock = clock
        self._live = self.console.is_terminal
        self._bars = rich.progress.Progress(
            rich.progress.SpinnerColumn(finished_text="[green]✓"),
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(bar_width=None),
            rich.progress.TextColumn("{task.completed}/{task.total}"),
            rich.progress.TextColumn("{task.fields[numbers]}", style="cyan"),
            _TimesColumn(self),
            console=self.console,
            expand=True,
            refresh_per_second=4,
        )
        self._task: rich.progress.TaskID | None = None
        self._name = ""
        self._total = self._done = 0
        self._started = self._last_step = self._last_line = 0.0
        self._finished_in: float | None = None
        self._numbers = self._activity = ""
        self._durations: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._compiled = False  # the first step of a phase is no measure of the others
        self._elapsed: dict[rich.progress.TaskID, float] = {}

    def __enter__(self) -> Progress:
        if self._live:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._finish_phase()
        if self._live:
            self._bars.stop()

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """Start the bar of a phase of `total` steps, `done` of which a resumed run already made."""
        self._finish_phase()
        self._name, self._total, self._done = name, total, done
        self._numbers = self._activity = ""
        self._started = self._last_step = self._last_line = self._clock()
        self._finished_in = None
        self._durations.clear()
        self._compiled = False
        if self._live:
            self._task = self._bars.add_task(_escape(name), total=total, completed=done, numbers="")
        else:
            self._line(f"{name}: {total} steps" + (f", {done} of them already made" if done else ""))

    def update(self, row: JsonObject) -> None:
        """One step is made; `row` is its metrics row (`reward/total` or `loss`, and `tokens_per_second` are shown)."""
        now = self._clock()
        if self._compiled:
            self._durations.append(now - self._last_step)
        self._compiled = True
        self._last_step = now
        self._done += 1
        self._numbers, self._activity = describe(row), ""
        if self._done >= self._total:
            self._finished_in = now - self._started
        self._show()
        if not self._live and (self._done >= self._total or now - self._last_line >= PLAIN_SECONDS):
            self._last_line = now
            self._line(f"{self._name} {self._done}/{self._total}  {self._numbers}  {self._times()}")

    def activity(self, text: str) -> None:
        """Say what is going on while no step ends, for example `compiling`; the next update clears it."""
        self._activity = text
        self._show()
        if not self._live:
            self._line(f"{self._name}: {text}" if self._name else text)

    def note(self, text: str) -> None:
        """Print a line that stays, above the live bars."""
        self._line(text)

    def time_left(self) -> float | None:
        """Seconds the running phase still takes, by the median of recent steps; None before its second step is made."""
        if not self._durations or self._done >= self._total:
            return None
        since = self._clock() - self._last_step
        return max(0.0, statistics.median(self._durations) * (self._total - self._done) - since)

    def _times(self) -> str:
        elapsed = self._finished_in if self._finished_in is not None else self._clock() - self._started
        left = self.time_left()
        return f"{duration(elapsed)}" + (f", {duration(left)} left" if left is not None else "")

    def _show(self) -> None:
        if self._live and self._task is not None:
            numbers = self._numbers if not self._activity else f"[yellow]{_escape(self._activity)}…[/]"
            self._bars.update(self._task, completed=self._done, numbers=numbers)

    def _finish_phase(self) -> None:
        if self._task is not None:
            if self._finished_in is None:
                self._finished_in = self._clock() - self._started
            self._elapsed[self._task] = self._finished_in
            self._activity = ""
            self._show()
            self._bars.stop_task(self._task)
            self._task = None

    def _line(self, text: str) -> None:
        # A long line must stay one line in a log file; in the terminal rich may wrap it.
        self.console.print(Text(text), soft_wrap=not self._live)


class _TimesColumn(rich.progress.ProgressColumn):
    """Elapsed time and time left, from the owner's own estimate."""

    def __init__(self, owner: Progress):
        super().__init__()
        self._owner = owner

    def render(self, task: rich.progress.Task) -> Text:
        if task.id == self._owner._task:
            return Text(self._owner._times(), style="dim")
        return Text(duration(self._owner._elapsed.get(task.id, 0.0)), style="dim")


def describe(row: JsonObject) -> str:
    """The few numbers of a metrics row that fit beside a bar."""
    parts = []
    if row.get("reward/total") is not None:
        parts.append(f"reward {row['reward/total']:.2f}")
    elif row.get("loss") is not None:
        parts.append(f"loss {row['loss']:.3f}")
    if row.get("tokens_per_second") is not None:
        parts.append(f"{row['tokens_per_second']:,.0f} tok/s")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """Seconds as `42s`, `3m05s` or `2h07m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def final_table(evals: list[JsonObject]) -> Table:
    """The table at the end of a run, from the rows of evals.jsonl.

    Rows are the stages, columns the modalities: accuracy with its 95% interval (Wilson) and, below it, the share of
    well-formed responses. The last line is the gain of the last stage over stage 0, the end of the cold start, in
    percentage points; earlier stages of the cold start have negative indices.
    """
    stages = sorted({(row["stage_index"], row["stage"]) for row in evals})
    modalities = [name for name in MODALITIES if any(row["modality"] == name for row in evals)]
    cells = {(row["stage_index"], row["modality"]): row for row in evals}
    table = Table(title="Held-out accuracy (95% interval) and share of well-formed responses", title_style="bold")
    table.add_column("after")
    titles = {"text": "text", "caption": "image + caption", "image": "image alone"}
    for name in modalities:
        counts = sorted({row["problems"] for row in evals if row["modality"] == name})
        table.add_column(f"{titles[name]}\n[dim]{' / '.join(map(str, counts))} problems[/]", justify="right")
    for index, stage in stages:
        table.add_row(
            _escape(stage),
            *(_cell(cells.get((index, name))) for name in modalities),
            end_section=index == stages[-1][0],
        )
    if len(stages) > 1:
        base = next((stage for stage in stages if stage[0] >= 0), stages[0])
        pairs = [(cells.get((base[0], name)), cells.get((stages[-1][0], name))) for name in modalities]
        gains = [f"{100 * (b['accuracy'] - a['accuracy']):+.1f} points" if a and b else "-" for a, b in pairs]
        table.add_row(f"[bold]gain over {_escape(base[1])}", *(f"[bold]{gain}" for gain in gains))
    return table


def _cell(row: JsonObject | None) -> str:
    if row is None:
        return "[dim]-[/]"
    interval = f"{100 * row['low']:.1f}–{100 * row['high']:.1f}"
    formed = f"\n[dim]format {100 * row['format_rate']:.0f}%[/]" if row.get("format_rate") is not None else ""
    return f"[bold]{100 * row['accuracy']:.1f}%[/]  {interval}{formed}"


def _escape(text: str) -> str:
    return rich.markup.escape(text)
