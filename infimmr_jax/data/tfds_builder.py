"""A TensorFlow Datasets builder for checked problems: ArrayRecord files written and read without TensorFlow."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import absl.logging
import numpy as np
import tensorflow_datasets as tfds

from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.data.roots import open_resolved, resolve_below
from infimmr_jax.names import JsonObject

VERSION = "1.0.0"

# Images are kept as their encoded bytes: TFDS's Image feature can not skip decoding inside a sequence, and the rules of
# `data.pictures` (rotation, alpha, size limits) must see the file as it was.
FEATURES = tfds.features.FeaturesDict(
    {
        "id": tfds.features.Text(),
        "question": tfds.features.Text(),
        "answer": tfds.features.Text(),
        "answer_type": tfds.features.Text(),
        "choices": tfds.features.Sequence(tfds.features.Text()),
        "images": tfds.features.Sequence(tfds.features.Tensor(shape=(), dtype=np.bytes_)),
        "caption": tfds.features.Text(),
        "solution": tfds.features.Text(),
        "source": tfds.features.Text(),
        "subject": tfds.features.Text(),
        "level": tfds.features.Scalar(np.float64),
        "extra": tfds.features.Text(),
    }
)


class InfimmrProblems(tfds.core.GeneratorBasedBuilder):
    """Problems of one converted source; the builder config's name is the source's."""

    VERSION = tfds.core.Version(VERSION)

    def __init__(self, *, splits: dict[str, Callable[[], Iterable[Problem]]] | None = None, **options: Any) -> None:
        self._problems = splits or {}
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        description = "Verifiable problems, checked row by row by `infimmr prepare`."
        return tfds.core.DatasetInfo(builder=self, description=description, features=FEATURES, disable_shuffling=True)

    def _split_generators(self, dl_manager: Any) -> JsonObject:
        return {name: self._generate_examples(make()) for name, make in self._problems.items()}

    def _generate_examples(self, problems: Iterable[Problem]) -> Iterator[tuple[int, JsonObject]]:
        for number, problem in enumerate(problems):
            yield number, to_example(problem)


def write_tfds(splits: dict[str, Callable[[], Iterable[Problem]]], folder: Path, name: str) -> Path:
    """Write problems as ArrayRecord in TFDS layout and return the directory that holds `dataset_info.json`.

    `splits` maps a split's name to a function giving its problems, which keep their order. The directory appears only
    when everything is written. Raises DataError when it exists already.
    """
    config = tfds.core.BuilderConfig(name=name, version=VERSION, description=f"converted source {name}")
    with _quiet():
        builder = InfimmrProblems(splits=splits, data_dir=folder, config=config, file_format="array_record")
        directory = Path(builder.data_dir)
        if directory.exists():
            raise DataError(f"{directory} exists already; remove it or choose another output folder")
        builder.download_and_prepare()
    return directory


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep TFDS from printing about downloads that do not happen and from drawing bars over ours."""
    verbosity = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        absl.logging.set_verbosity(verbosity)


class TfdsSource(Sequence[Problem]):
    """The problems of one split of a directory in TFDS layout, read by random access when asked for."""

    def __init__(self, directory: Path, split: str) -> None:
        if not (directory / "dataset_info.json").is_file():
            raise DataError(f"{directory} holds no dataset_info.json: it is not the directory of a TFDS version")
        for file in directory.iterdir():  # TFDS opens them by name
            resolve_below(directory, file.name, "file")
        try:
            builder = tfds.builder_from_directory(directory)
        except Exception as error:  # of a damaged directory, whatever TFDS and protobuf raise
            said = f"{type(error).__name__}: {str(error)[:200]}"
            raise DataError(f"{directory} can not be read as a TFDS directory: {said}") from error
        if split not in builder.info.splits:
            raise DataError(f"{directory} has no split {split!r}; it has {', '.join(builder.info.splits)}")
        if set(builder.info.features) != set(FEATURES):
            raise DataError(f"{directory} was not written by `infimmr prepare`: its features are others")
        self._records = builder.as_data_source(split=split)

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...
    def __getitem__(self, index: int | slice) -> Problem | list[Problem]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"problem {index} of {len(self)}")
        return from_example(self._records[index % len(self)])


def to_example(problem: Problem) -> JsonObject:
    """The record of a problem: image files are read into it; what is absent is empty, an absent level NaN."""
    return {
        "id": problem.id,
        "question": problem.question,
        "answer": problem.answer,
        "answer_type": problem.answer_type,
        "choices": list(problem.choices),
        "images": [_content(image) for image in problem.images],
        "caption": problem.caption or "",
        "solution": problem.solution or "",
        "source": problem.source,
        "subject": problem.subject or "",
        "level": math.nan if problem.level is None else problem.level,
        "extra": json.dumps(problem.extra, ensure_ascii=False, default=str),
    }


def _content(image: str | bytes) -> bytes:
    if isinstance(image, bytes):
        return image
    with open_resolved(image) as file:
        return file.read()


def from_example(example: JsonObject) -> Problem:
    """The problem of a record that `to_example` made."""
    text = {key: value.decode() for key, value in example.items() if isinstance(value, bytes)}
    level = float(example["level"])
    return Problem(
        id=text["id"],
        question=text["question"],
        answer=text["answer"],
        answer_type=text["answer_type"],  # type: ignore[arg-type]
        choices=tuple(choice.decode() for choice in example["choices"]),
        images=tuple(example["images"]),
        caption=text["caption"] or None,
        solution=text["solution"] or None,
        source=text["source"],
        subject=text["subject"] or None,
        level=None if math.isnan(level) else level,
        extra=json.loads(text["extra"]),
    )
