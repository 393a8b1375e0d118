"""A project's photos, kept on disk between turns and brought up to date from the store's changes.

The store is the truth. A turn reads what changed since the last one, and compares the numbers of all photos' changes
with the store's: where they differ, or the store is older than the files, everything is read anew. So a restored
backup, another store, or files that were torn cost time and nothing else.
"""

import logging
from pathlib import Path

import numpy as np

from backend.pool.facts import NONE, HeldPredictions, PoolFacts, is_among
from backend.pool.files import Embeddings, KeptPool, MemoryEmbeddings, PoolFiles, locked
from carcond.arrays import IntArray
from carcond.store.changes import ChangeReader, checksum_of
from carcond.store.embedding_matrix import EmbeddingMatrix
from carcond.store.store import Store

logger = logging.getLogger(__name__)

# Embeddings of photos that were exchanged stay in the file until there are this many more than photos have.
_LEFTOVERS = 10_000
# Photos of a store from before changes had numbers have the number 0.
_BEFORE_ALL = -1


class PoolCache:
    """The photos of one project, with their embeddings by one encoder."""

    def __init__(self, store: Store, project_id: int, encoder_id: str, directory: Path) -> None:
        """Name the pool.

        Args:
            store: the truth.
            project_id: of the photos.
            encoder_id: of the embeddings.
            directory: of the files, of this pool alone; made when it is missing.
        """
        self._store = store
        self._project_id = project_id
        self._encoder_id = encoder_id
        self._directory = directory

    def read(self) -> tuple[PoolFacts, IntArray, EmbeddingMatrix]:
        """Bring the files up to date, and return what the store has now.

        Returns:
            Facts of all photos; the positions in them ``(P,)`` of photos in Label Studio that have an embedding; and
            their embeddings ``(P, D)``, in order of task id.
        """
        try:
            with locked(self._directory) as files, self._store.changes(self._project_id) as reader:
                kept = files.load()
                facts = self._updated(reader, files, kept) if kept else None
                if facts is None:
                    files.forget()
                    facts = self._follow(reader, files, PoolFacts.empty(), since=_BEFORE_ALL)
                if kept is None or facts is not kept.facts:
                    files.publish(KeptPool(reader.number(), facts))
                return _usable(facts, files)
        except OSError as error:
            what = "project %d: its photos are read from the store, which takes a while, and not kept in %s: %s"
            logger.warning(what, self._project_id, self._directory, error)
        embeddings = MemoryEmbeddings()
        with self._store.changes(self._project_id) as reader:
            return _usable(self._follow(reader, embeddings, PoolFacts.empty(), since=_BEFORE_ALL), embeddings)

    def _updated(self, reader: ChangeReader, files: PoolFiles, kept: KeptPool) -> PoolFacts | None:
        """The kept facts with what changed since; None where all has to be read anew."""
        number = reader.number()
        if kept.number > number:
            self._log_rebuild(f"they have change {kept.number}, and the store has come to {number} only")
            return None
        facts = self._follow(reader, files, kept.facts, kept.number)
        if checksum_of(facts.changes) != reader.checksum():
            self._log_rebuild("they are not those of the store")
            return None
        if files.count > 2 * int((facts.places != NONE).sum()) + _LEFTOVERS:
            self._log_rebuild("most of their embeddings are of former photos")
            return None
        return facts

    def _log_rebuild(self, why: str) -> None:
        logger.warning("project %d: photos kept in %s are read anew: %s", self._project_id, self._directory, why)

    def _follow(self, reader: ChangeReader, embeddings: Embeddings, facts: PoolFacts, since: int) -> PoolFacts:
        """Facts with all that changed since a number; new embeddings are appended."""
        parts = []
        for photos in reader.photos(since):
            places = self._place(reader, embeddings, facts, photos.task_ids)
            held = HeldPredictions.of(reader.predictions(photos.task_ids))
            parts.append(PoolFacts.of(self._project_id, photos, places, held))
        return facts.merged(PoolFacts.joined(parts)) if parts else facts

    def _place(self, reader: ChangeReader, embeddings: Embeddings, facts: PoolFacts, task_ids: IntArray) -> IntArray:
        """Rows of the embeddings of photos ``(T,)``: those that differ from the kept ones are appended."""
        places = np.full(len(task_ids), NONE, dtype=np.int64)
        known = is_among(task_ids, facts.task_ids)
        before = places.copy()
        before[known] = facts.places[np.searchsorted(facts.task_ids, task_ids[known])]
        for ids, halves in reader.embeddings(self._encoder_id, task_ids):
            at = np.searchsorted(task_ids, ids)
            same = before[at] != NONE
            if same.any():
                same[same] = (embeddings.rows(before[at[same]]) == halves[same]).all(axis=1)
            places[at[same]] = before[at[same]]
            places[at[~same]] = embeddings.count + np.arange(int((~same).sum()))
            if not same.all():
                embeddings.append(halves[~same])
        return places


def _usable(facts: PoolFacts, embeddings: Embeddings) -> tuple[PoolFacts, IntArray, EmbeddingMatrix]:
    positions = np.flatnonzero((facts.places != NONE) & ~facts.gone)
    return facts, positions, embeddings.matrix(facts.places[positions])
