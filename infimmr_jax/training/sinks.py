"""Where a run's numbers go: JSONL files always, TensorBoard by default, Weights & Biases when asked."""

from __future__ import annotations

import base64
import io
import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

import jax
import numpy as np
from PIL import Image

from infimmr_jax.config import LoggingSection
from infimmr_jax.data.pictures import FORMATS
from infimmr_jax.errors import UserError
from infimmr_jax.files import content_name, cut_rows, json_line, plain_json, store_once
from infimmr_jax.names import JsonObject
from infimmr_jax.parallel.hosts import gather_rows, largest_over_hosts

ROW_FILES = ("metrics", "evals", "transcripts")
TRANSCRIPT_PIXELS = 512


class SinkError(UserError, RuntimeError):
    """A sink can not be opened: the message says which and what to do."""


@runtime_checkable
class ScalarSink(Protocol):
    """A sink for scalars of one series (`sft`, `grpo`, `evals`) over that series' own step."""

    def scalars(self, series: str, step: int, values: dict[str, float]) -> None: ...
    def close(self) -> None: ...


class Sinks:
    """The open sinks of one run; every method does nothing on processes other than 0.

    Rows are flushed one by one, so a killed run loses at most the row being written.
    """

    def __init__(self, run_dir: Path, files: dict[str, BinaryIO], rows: dict[str, int], scalar_sinks: list[ScalarSink]):
        self.run_dir = run_dir
        self._files = files
        self._rows = rows
        self._scalar_sinks = scalar_sinks

    def metrics(self, row: JsonObject) -> None:
        """Append a row to metrics.jsonl and send its numbers on; `kind` and `step` are needed, `time` is filled in."""
        row = {"time": time.time(), **row}
        self._append("metrics", row)
        names = {"time", "step", "step_in_phase", "phase_index"}
        self._scalars(row["kind"], int(row["step"]), {key: row[key] for key in row if key not in names})

    def evaluation(self, row: JsonObject) -> None:
        """Append a row to evals.jsonl (one modality at one stage) and send its shares on, over the stage index."""
        self._append("evals", row)
        names = ("accuracy", "format_rate", "length", "truncated", "worked_share")
        values = {f"{name}/{row['modality']}": row[name] for name in names if name in row}
        self._scalars("evals", int(row["stage_index"]), values)

    def transcript(self, row: JsonObject) -> None:
        """Append one problem with all its responses to transcripts.jsonl."""
        self._append("transcripts", row)

    def transcript_image(self, image: str | bytes | Path) -> str:
        """Save a picture (a path, or encoded bytes) for the transcripts; return its path relative to the run directory.

        Pictures are named by content, so one that is shown often is stored once; larger ones are scaled to 512 pixels.
        """
        data = image if isinstance(image, bytes) else Path(image).read_bytes()
        name = _picture_name(data)
        if self._files and not (self.run_dir / name).exists():
            _, png = _picture(data)
            store_once(self.run_dir / name, png)
        return name

    def transcripts(self, rows: Sequence[tuple[JsonObject, Sequence[str | bytes]]]) -> None:
        """Append problems, each with its pictures, of all processes in their order; all processes must call this."""
        if jax.process_count() == 1:
            for row, images in rows:
                self.transcript({**row, "images": [self.transcript_image(image) for image in images]})
            return
        # The pictures travel along: the disk of another machine is not this one's.
        sent = []
        for row, images in rows:
            pictures = [_picture(image) for image in images]
            sent.append(
                {"row": plain_json(row), "images": [[name, base64.b64encode(png).decode()] for name, png in pictures]}
            )
        for item in gather_rows(sent):
            for name, png in item["images"]:
                store_once(self.run_dir / name, base64.b64decode(png))
            self.transcript({**item["row"], "images": [name for name, _ in item["images"]]})

    def position(self) -> dict[str, int]:
        """Rows written so far per file, brought to the disk; a checkpoint stores it, `open_sinks` resumes from it."""
        for file in self._files.values():
            os.fsync(file.fileno())
        return dict(self._rows)

    def close(self) -> None:
        for sink in self._scalar_sinks:
            sink.close()
        for file in self._files.values():
            file.close()

    def __enter__(self) -> Sinks:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, name: str, row: JsonObject) -> None:
        if name in self._files:
            self._files[name].write(json_line(row))
            self._files[name].flush()
        self._rows[name] += 1

    def _scalars(self, series: str, step: int, values: JsonObject) -> None:
        numbers = {key: float(value) for key, value in values.items() if _is_number(value)}
        for sink in self._scalar_sinks:
            sink.scalars(series, step, numbers)


def open_trackers(
    run_dir: Path, logging: LoggingSection, configuration: Mapping[str, object] | None = None
) -> list[ScalarSink]:
    """Connect to what a run reports to over a network, on process 0; SinkError, in a sentence, when that fails.

    `configuration` is shown there. All processes must call this, before anything is compiled; the result is for
    `open_sinks`.
    """
    if logging.wandb_project is None:
        return []
    trackers: list[ScalarSink] = []
    failed: SinkError | None = None
    if jax.process_index() == 0:
        run_dir.mkdir(parents=True, exist_ok=True)
        try:
            trackers.append(_WeightsAndBiases(run_dir, logging.wandb_project, configuration))
        except SinkError as error:
            failed = error
    if largest_over_hosts(np.asarray([int(failed is not None)]))[0]:
        raise failed or SinkError("process 0 can not reach Weights & Biases; its message says why")
    return trackers


def open_sinks(
    run_dir: Path,
    logging: LoggingSection,
    resume_from: dict[str, int] | None = None,
    trackers: Sequence[ScalarSink] | None = None,
) -> Sinks:
    """Open the sinks of a run; `trackers` are those of `open_trackers`, which is called here where they are not given.

    `resume_from` is `Sinks.position()` as of the checkpoint: later rows (and a torn last line) are cut away, so the
    files go on like an unbroken run's; `{}` starts again from nothing. None means a new run, and raises SinkError when
    the directory already holds rows.
    """
    if jax.process_index() != 0:
        return Sinks(run_dir, {}, dict.fromkeys(ROW_FILES, 0) | (resume_from or {}), [])
    run_dir.mkdir(parents=True, exist_ok=True)
    if trackers is None:
        trackers = open_trackers(run_dir, logging)
    files: dict[str, BinaryIO] = {}
    rows: dict[str, int] = {}
    for name in ROW_FILES:
        path = run_dir / f"{name}.jsonl"
        if resume_from is None and path.exists() and path.stat().st_size:
            raise SinkError(f"{path} already holds the rows of a run: resume it, or choose another output directory")
        rows[name] = cut_rows(path, (resume_from or {}).get(name, 0))
        files[name] = path.open("ab")
    scalar_sinks: list[ScalarSink] = [*trackers]
    if logging.tensorboard:
        scalar_sinks.append(_TensorBoard(run_dir / "tensorboard", next_steps(run_dir)))
    return Sinks(run_dir, files, rows, scalar_sinks)


def _picture_name(data: bytes) -> str:
    return f"transcripts/{content_name(data, '.png')}"


def _picture(image: str | bytes | Path) -> tuple[str, bytes]:
    """A picture's name in the run directory, and its small PNG."""
    data = image if isinstance(image, bytes) else Path(image).read_bytes()
    with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        picture.thumbnail((TRANSCRIPT_PIXELS, TRANSCRIPT_PIXELS))
        encoded = io.BytesIO()
        picture.convert("RGB").save(encoded, "PNG")
    return _picture_name(data), encoded.getvalue()


def next_steps(run_dir: Path) -> dict[str, int]:
    """The step after the last one in the files, per series; TensorBoard drops what lies from there on."""
    steps = {"sft": 0, "grpo": 0, "evals": 0}
    for name, key in (("metrics", "step"), ("evals", "stage_index")):
        for line in (run_dir / f"{name}.jsonl").read_bytes().splitlines():
            row = json.loads(line)
            series = row.get("kind", "evals")
            steps[series] = max(steps.get(series, 0), row[key] + 1)
    return steps


class _TensorBoard:
    """Event files below `tensorboard/`; one writer a series, for a purge after a resume concerns all its steps."""

    def __init__(self, directory: Path, first_steps: dict[str, int]):
        self._directory = directory
        self._first_steps = first_steps
        self._writers: JsonObject = {}

    def scalars(self, series: str, step: int, values: dict[str, float]) -> None:
        # Imported here: protobuf start-up costs half a second that runs without TensorBoard need not pay.
        from tensorboardX import SummaryWriter

        if series not in self._writers:
            self._writers[series] = SummaryWriter(
                str(self._directory / series),
                purge_step=self._first_steps.get(series, 0),
                flush_secs=10,
                # File names hold whole seconds only: a quick resume must not write over the file before.
                filename_suffix=f".{time.time_ns()}",
            )
        for key, value in values.items():
            self._writers[series].add_scalar(key, value, step)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()


class _WeightsAndBiases:
    """One Weights & Biases run; its id is kept in the run directory's `wandb_id` for a resumed run to continue."""

    def __init__(self, run_dir: Path, project: str, configuration: Mapping[str, object] | None = None):
        try:
            import wandb
        except ImportError:
            raise SinkError(
                "logging.wandb_project is set, but the package wandb is not installed: "
                "pip install wandb, or remove the key"
            ) from None
        id_file = run_dir / "wandb_id"
        if not id_file.exists():
            id_file.write_text(secrets.token_hex(6))
        try:
            self._run = wandb.init(
                project=project,
                name=run_dir.name.encode("utf-8", "backslashreplace").decode(),
                dir=str(run_dir),
                id=id_file.read_text().strip(),
                resume="allow",
                config=dict(configuration or {}),
            )
        except Exception as error:  # no key, no network, no such project: the package has a class for each
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise SinkError(
                f"Weights & Biases can not be used for logging.wandb_project {project!r} ({why}): log in with "
                "`wandb login`, set WANDB_API_KEY or WANDB_MODE=offline, or remove the key"
            ) from error
        for series in ("sft", "grpo", "evals"):
            # Own x axes: wandb's step may only grow, and a resumed run repeats steps.
            self._run.define_metric(f"{series}/step")
            self._run.define_metric(f"{series}/*", step_metric=f"{series}/step")

    def scalars(self, series: str, step: int, values: dict[str, float]) -> None:
        self._run.log({f"{series}/step": step, **{f"{series}/{key}": value for key, value in values.items()}})

    def close(self) -> None:
        self._run.finish()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) or (hasattr(value, "shape") and value.shape == ())
