"""Elements of a dataset made ahead by worker processes; where it stands is one number, whatever their number."""

from __future__ import annotations

from typing import Generic, TypeVar

import grain
from absl import flags

from infimmr_jax.names import JsonObject

T = TypeVar("T")


class WorkerIterator(Generic[T]):
    """The elements of a random-access dataset from `start` on, in its order, made by `workers` processes.

    Each process makes every `workers`-th element, `ahead` of them in advance, on `threads` threads. The state is the
    number of the next element: a run may go on with another number of workers, or with none. The dataset is sent to
    the processes, so what it holds must be picklable; they are started at the first element and end with `close`, or
    with the iterator.
    """

    def __init__(
        self, dataset: grain.MapDataset[T], start: int = 0, workers: int = 1, threads: int = 1, ahead: int = 2
    ) -> None:
        self._dataset, self._next = dataset, start
        self._workers, self._threads, self._ahead = workers, threads, ahead
        self._running: grain.DatasetIterator[T] | None = None

    def __iter__(self) -> WorkerIterator[T]:
        return self

    def __next__(self) -> T:
        if self._next >= len(self._dataset):
            self.close()
            raise StopIteration
        if self._running is None:
            self._running = iter(self._started())
        element = next(self._running)
        self._next += 1
        return element

    def get_state(self) -> JsonObject:
        """The number of the next element, as Grain's own iterators of random-access datasets give it."""
        return {"next_index": self._next}

    def set_state(self, state: JsonObject) -> None:
        """Go on from another element."""
        self.close()
        self._next = int(state["next_index"])

    def close(self) -> None:
        """End the processes."""
        if self._running is not None:
            self._running.close()
            self._running = None

    def _started(self) -> grain.IterDataset[T]:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain reads its own flags, which a program without absl.app never parses.
        rest = self._dataset.slice(slice(self._next, None))
        options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=self._ahead)
        processes = grain.MultiprocessingOptions(num_workers=self._workers, per_worker_buffer_size=self._ahead)
        return rest.to_iter_dataset(options).mp_prefetch(processes)
