"""Backups of former releases open in this one: their stores, encoders and versions."""

from pathlib import Path

import numpy as np
import pytest

from backend.cli.backup import restore
from backend.project.queue import queued_photos
from backend.services import Services
from backend.snapshot import Snapshot
from carcond.settings import Settings
from carcond.store.store import Store

# Written by `carcond backup` of the release before the packages: forty drawn photos, twelve of them labelled.
_BACKUPS = sorted((Path(__file__).parents[1] / "old_backups").glob("*.tar"))
PROJECT, PHOTOS, LABELLED = 1, 40, 12


@pytest.mark.parametrize("backup", _BACKUPS, ids=lambda path: path.stem)
def test_what_it_holds_is_served_and_learnt_from(backup: Path, tmp_path: Path) -> None:
    restore(backup, tmp_path / "data")
    url = f"sqlite:///{tmp_path / 'data' / 'carcond.sqlite3'}"
    services = Services(Settings(database_url=url, models_dir=tmp_path / "data" / "models"))
    version = services.registry(PROJECT).current()
    assert version is not None
    assert version.name == "carcond-0001"
    assert len(services.registry(PROJECT).labels(1)) == LABELLED
    assert services.encoder(version.heads.encoder_id).spec.size > 0
    snapshot = Snapshot.take(services, PROJECT, version.heads.encoder_id)
    assert (len(snapshot.task_ids), len(snapshot.labels)) == (PHOTOS, LABELLED)
    probabilities = version.heads.probabilities(snapshot.embeddings)
    assert all(np.allclose(rows.sum(axis=1), 1, atol=1e-5) for rows in probabilities.values())
    photos = queued_photos(services, PROJECT, 100)
    assert len(photos) == PHOTOS - LABELLED
    assert {photo.slot == 0 for photo in photos} == {True, False}
    services.store.close()
    assert Store(url).project_ids() == [PROJECT]
