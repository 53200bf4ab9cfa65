"""The files of a log on their way to its counts: each is counted by itself, once, and their counts are added up."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ctr.dataset import partial_counts
from ctr.dataset.count_store import CountStore, TrainRows, count_key
from ctr.dataset.inputs import InputFile, Source
from ctr.dataset.partial_counts import Counted, PartialCounts
from ctr.dataset.splitting import Ints


class CountedFiles:
    """Which files have been counted before, and the counts of all; files go by their number in the log, from 0.

    Args:
        sources: the log's files, in order.
        inputs: their sizes and digests.
        sides: those of the side tables.
        scratch: a folder for this run, which need not be there yet.
        store: what is known, and where new counts are kept.
        unchanged: whether a file's bytes are still those that its digest was taken of; others' counts are not kept.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        inputs: Sequence[InputFile],
        sides: Sequence[InputFile],
        scratch: Path,
        store: CountStore,
        unchanged: Callable[[Source], bool],
    ) -> None:
        self.sides = list(sides)
        self._sources, self._inputs = sources, inputs
        self._scratch, self._store, self._unchanged = scratch, store, unchanged
        self._rows = [TrainRows() for _ in sources]
        self._keys: dict[int, str] = {}
        self.known: list[int] = []
        self.fresh: list[int] = []

    def add(self, file: int, rows: Ints) -> None:
        """Take in the train rows of a file's next chunk: their numbers in the file."""
        self._rows[file].add(rows)

    def fetch(self, prepared: dict[str, Any]) -> None:
        """Find out which files with train rows are known, once all train rows are.

        Args:
            prepared: how files become prepared cells (`count_store.prepared_by`).
        """
        self._scratch.mkdir(parents=True)
        for file, (source, entry, rows) in enumerate(
            zip(self._sources, self._inputs, self._rows, strict=True)
        ):
            if rows.count:
                key = self._keys[file] = count_key(prepared, entry, source.path.suffix, rows)
                known = self._store.fetch(key, self._path(file))
                (self.known if known else self.fresh).append(file)

    def write(self, file: int, counted: Iterable[Counted], weighted: bool) -> None:
        """Take in the counts of a file that was not known, and keep them for the next ingest."""
        partial_counts.write(self._path(file), counted, weighted)
        if self._unchanged(self._sources[file]):
            self._store.keep(self._keys[file], self._path(file))

    def prune(self) -> None:
        """Drop what the store holds of files that have been out of use for long (`CountStore.prune`)."""
        self._store.prune()

    def partials(self) -> list[PartialCounts]:
        """The counts of all files with train rows, in order."""
        return [PartialCounts(self._path(file)) for file in sorted([*self.known, *self.fresh])]

    @property
    def told(self) -> str:
        """How many files were counted, in words."""
        return (
            f"counts: {len(self.fresh)} file{'s' * (len(self.fresh) != 1)} counted, {len(self.known)} known"
        )

    def _path(self, file: int) -> Path:
        return self._scratch / f"{file:06d}.parquet"
