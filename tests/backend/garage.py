"""A project of drawn photos with all that a turn of the loop needs, on an in-memory Label Studio."""

from typing import Any

from backend.jobs.queue import SHARDS
from backend.loop.embedding import embed_shard
from backend.loop.predictions import is_blank
from backend.loop.turn import Loop, TurnReport
from backend.loop.waiting_photos import Shard
from backend.services import Services
from carcond.data.split import photo_draw
from carcond.query.slots import EXPLORATION_SLOT
from tests.backend.drawings import draw_photo
from tests.backend.fake_label_studio import PROJECT, FakeLabelStudio
from tests.backend.http_server import HttpServer, Reply

CLEANLINESS = ("clean", "slightly_dirty", "very_dirty")
DAMAGE = ("intact", "damaged")


class Garage:
    """A project of drawn photos, the people who label them, and the loop that learns from them."""

    def __init__(self, services: Services, server: HttpServer) -> None:
        self.services = services
        self.studio = FakeLabelStudio()
        self.truth: dict[int, dict[str, str]] = {}
        services.api = self.studio
        self.server = server

    def add_photos(self, count: int) -> list[int]:
        added = []
        for seed in range(len(self.truth), len(self.truth) + count):
            truth = {"cleanliness": CLEANLINESS[seed % 3], "damage": DAMAGE[seed // 3 % 2]}
            self.server.answers[f"/data/{seed}.jpg"] = Reply(draw_photo(seed, **truth))
            (task_id,) = self.studio.import_photos(f"/data/{seed}.jpg")
            self.truth[task_id] = truth
            added.append(task_id)
        return added

    def add_bad_photo(self, path: str, reply: Reply) -> int:
        self.server.answers[path] = reply
        return self.studio.import_photos(path)[0]

    def label(self, *task_ids: int, annotator: int = 1) -> None:
        for task_id in task_ids:
            self.studio.annotate(task_id, annotator, False, **self.truth[task_id])

    @property
    def loop(self) -> Loop:
        return Loop(self.services, PROJECT, lambda *_: None)

    def turn(self) -> TurnReport:
        return self.loop.turn()

    def show_pool(self, encoder_id: str) -> None:
        """What the embedding jobs do: show an encoder that may take over all photos."""
        for number in range(SHARDS):
            shard = Shard(number, SHARDS)
            left = embed_shard(
                self.services, PROJECT, encoder_id, shard, interrupted=lambda: False, progress=lambda *_: None
            )
            assert left == 0

    def take_over(self) -> TurnReport:
        """A turn that finds a new encoder, the showing of the pool, and the turn that tries it."""
        self.show_pool(self.turn().candidate)
        return self.turn()

    def settle(self) -> TurnReport:
        """A turn and the refresh that follows it."""
        report = self.turn()
        assert self.loop.refresh(lambda: False) == 0
        return report

    def fresh_services(self) -> Services:
        """What another process would have."""
        return Services(self.services.settings)

    def drawn(self) -> set[int]:
        return {photo.task_id for photo in self.services.store.photos(PROJECT) if photo.drawn}

    def opens_blank(self, task_id: int) -> bool:
        """True if no answer is chosen for a photo: it is held out, or one of the few others."""
        return is_blank(task_id in self.drawn(), photo_draw(PROJECT, task_id))

    def words(self, *task_ids: int) -> list[dict[str, str]]:
        """What is chosen for each photo, those left out that have to open blank, and do."""
        for task_id in filter(self.opens_blank, task_ids):
            assert self.studio.words(task_id) == {}
        return [self.studio.words(task_id) for task_id in task_ids if not self.opens_blank(task_id)]

    def explored(self) -> set[int]:
        """Unlabelled tasks in the exploration slot, as Label Studio holds them."""
        return {
            task.id
            for task in self.studio.tasks(PROJECT)
            if not task.annotations and any(p.slot == EXPLORATION_SLOT for p in task.predictions)
        }

    def rows(self) -> dict[int, dict[str, Any]]:
        """The labels of the serving version."""
        version = self.services.registry(PROJECT).current()
        assert version
        return {row["task"]: row for row in self.services.registry(PROJECT).labels(version.number)}
