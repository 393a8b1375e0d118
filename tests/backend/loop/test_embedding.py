import itertools
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from backend.label_studio.photo_fetcher import PhotoFetcher
from backend.loop.embedding import embed_new_photos, look_at_kept_photos
from backend.services import Services
from carcond.arrays import FloatArray
from carcond.data.images import hamming
from carcond.errors import EncoderError
from carcond.model.encoder import BATCH_SIZE, find_encoder
from carcond.store.store import TaskMirror
from carcond.store.tables import Photo
from tests.backend.drawings import draw_photo
from tests.backend.http_server import HttpServer, Reply, Request

PROJECT = 1
Embed = Callable[..., int]


class WorkerKilledError(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def embed(services: Services) -> Embed:
    """One go at a project's photos; returns how many are left."""

    def run(seconds: float = 20.0) -> int:
        return embed_new_photos(services, PROJECT, services.encoder_id(), seconds, lambda *_: None)

    return run


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A photo that could not be had may be tried again at once."""
    monkeypatch.setattr("backend.loop.embedding._FIRST_WAIT_S", 0.0)


def import_photos(services: Services, urls: Sequence[str]) -> None:
    mirrors = [TaskMirror(i, url, (), ()) for i, url in enumerate(urls, start=1)]
    services.store.mirror_tasks(PROJECT, mirrors)


def photos(services: Services) -> list[Photo]:
    return services.store.photos(PROJECT)


def embedded(services: Services) -> list[int]:
    return [int(i) for i in services.store.embeddings(PROJECT, services.encoder_id())[0]]


def test_each_photo_is_embedded_as_the_encoder_sees_it(services: Services, server: HttpServer, embed: Embed) -> None:
    pictures = [draw_photo(i) for i in range(20)]
    server.answers |= {f"/data/{i}.jpg": Reply(picture) for i, picture in enumerate(pictures)}
    import_photos(services, [f"/data/{i}.jpg" for i in range(20)])
    assert embed() == 0
    ids, kept = services.store.embeddings(PROJECT, services.encoder_id())
    encoder = services.encoder(services.encoder_id())
    assert ids.tolist() == list(range(1, 21))
    np.testing.assert_allclose(kept, [encoder.embed_photo(p, 10**6) for p in pictures], rtol=2e-3, atol=1e-4)
    assert all(photo.phash and photo.problem is None for photo in photos(services))


def test_the_next_batch_is_fetched_while_one_is_encoded(
    services: Services, server: HttpServer, embed: Embed, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers |= {f"/data/{i}.jpg": Reply(draw_photo(i)) for i in range(3 * BATCH_SIZE)}
    import_photos(services, [f"/data/{i}.jpg" for i in range(3 * BATCH_SIZE)])
    encoder = services.encoder(services.encoder_id())
    encode, fetched = encoder.embed, []

    def slow_embed(pixels: FloatArray) -> FloatArray:
        deadline = time.monotonic() + 10
        while len(server.requests) < 2 * BATCH_SIZE and time.monotonic() < deadline:
            time.sleep(0.01)
        fetched.append(len(server.requests))
        return encode(pixels)

    monkeypatch.setattr(encoder, "embed", slow_embed)
    assert embed() == 0
    assert fetched[0] == 2 * BATCH_SIZE


def test_an_encoder_that_fails_is_not_held_against_the_photos(
    services: Services, server: HttpServer, embed: Embed, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["/data/a.jpg"] = Reply(draw_photo(1))
    import_photos(services, ["/data/a.jpg"])

    def broken(_: FloatArray) -> FloatArray:
        raise EncoderError("out of memory")

    monkeypatch.setattr(services.encoder(services.encoder_id()), "embed", broken)
    with pytest.raises(EncoderError, match="out of memory"):
        embed()
    (photo,) = photos(services)
    assert (photo.problem, photo.failures, photo.retry_at) == (None, 0, 0.0)


def test_an_encoder_that_fails_is_not_held_against_the_next_batch_either(
    services: Services, server: HttpServer, embed: Embed, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 3 * BATCH_SIZE
    server.answers |= {f"/data/{i}.jpg": Reply(draw_photo(i)) for i in range(count)}
    import_photos(services, [f"/data/{i}.jpg" for i in range(count)])

    def broken(_: FloatArray) -> FloatArray:
        raise EncoderError("out of memory")

    monkeypatch.setattr(services.encoder(services.encoder_id()), "embed", broken)
    with pytest.raises(EncoderError, match="out of memory"):
        embed()
    assert {(photo.problem, photo.failures, photo.retry_at) for photo in photos(services)} == {(None, 0, 0.0)}


def test_a_photo_that_is_exchanged_while_it_is_encoded_is_embedded_anew(
    services: Services, server: HttpServer, embed: Embed, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers |= {"/data/old.jpg": Reply(draw_photo(1)), "/data/new.jpg": Reply(draw_photo(2))}
    import_photos(services, ["/data/old.jpg"])
    encoder = services.encoder(services.encoder_id())
    whole = encoder.embed

    def exchange(pixels: FloatArray) -> FloatArray:
        import_photos(services, ["/data/new.jpg"])
        return whole(pixels)

    monkeypatch.setattr(encoder, "embed", exchange)
    embed()
    assert (embedded(services), photos(services)[0].phash) == ([], None)
    monkeypatch.setattr(encoder, "embed", whole)
    embed()
    (task_ids, rows) = services.store.embeddings(PROJECT, services.encoder_id())
    assert task_ids.tolist() == [1]
    np.testing.assert_allclose(rows[0], encoder.embed_photo(draw_photo(2), 10**6), rtol=2e-3, atol=1e-4)


def test_photos_behind_the_first_ones_are_left_too(
    services: Services, embed: Embed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.loop.waiting_photos._AT_ONCE", 3)
    import_photos(services, [f"/data/{i}.jpg" for i in range(7)])
    assert embed(seconds=0) == 7


def test_what_is_encoded_before_the_encoder_fails_is_kept(
    services: Services, server: HttpServer, embed: Embed, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers |= {f"/data/{i}.jpg": Reply(draw_photo(i)) for i in range(3)}
    import_photos(services, [f"/data/{i}.jpg" for i in range(3)])
    encoder = services.encoder(services.encoder_id())
    whole, runs = encoder.embed, itertools.count()

    def broken(pixels: FloatArray) -> FloatArray:
        if next(runs):
            raise EncoderError("out of memory")
        return whole(pixels)

    monkeypatch.setattr(encoder, "embed", broken)
    monkeypatch.setattr(type(encoder), "batch_size", 1)
    with pytest.raises(EncoderError, match="out of memory"):
        embed()
    assert len(embedded(services)) == 1
    assert {photo.failures for photo in photos(services)} == {0}


def test_an_embedded_photo_is_not_fetched_again(services: Services, server: HttpServer, embed: Embed) -> None:
    server.answers["/data/a.jpg"] = Reply(draw_photo(1))
    import_photos(services, ["/data/a.jpg"])
    embed()
    embed()
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (Reply(b"<html>"), "expected a JPEG"),
        (Reply(b""), "empty"),
        (Reply(draw_photo(1)[:400]), "damaged"),
        (Reply(status=404), "404"),
    ],
)
def test_an_unreadable_photo_is_written_down_and_not_tried_again(
    services: Services, server: HttpServer, embed: Embed, reply: Reply, problem: str
) -> None:
    server.answers |= {"/data/bad.jpg": reply, "/data/good.jpg": Reply(draw_photo(2))}
    import_photos(services, ["/data/bad.jpg", "/data/good.jpg"])
    assert embed() == 0
    assert embedded(services) == [2]
    bad, good = photos(services)
    assert problem in (bad.problem or "")
    assert (bad.retry_at, good.problem) == (None, None)
    embed()
    assert len(server.requests) == 2


def test_a_photo_behind_a_closed_door_is_tried_again(
    services: Services, server: HttpServer, embed: Embed, no_waiting: None
) -> None:
    server.answers["/data/a.jpg"] = Reply(status=401)
    import_photos(services, ["/data/a.jpg"])
    assert embed() == 0
    assert "401" in (photos(services)[0].problem or "")
    server.answers["/data/a.jpg"] = Reply(draw_photo(1))
    assert embed() == 0
    assert embedded(services) == [1]
    assert photos(services)[0].problem is None


def test_a_photo_that_cannot_be_had_waits_twice_as_long_after_each_try(
    services: Services, server: HttpServer, embed: Embed, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["/data/a.jpg"] = Reply(status=503)
    import_photos(services, ["/data/a.jpg"])
    now = 1_000_000.0
    monkeypatch.setattr("backend.loop.embedding.time.time", lambda: now)
    waits = []
    for _ in range(3):
        embed()
        embed()
        waits.append((photos(services)[0].retry_at or 0.0) - now)
        now += waits[-1]
    assert waits == [30.0, 60.0, 120.0]
    assert len([request for request in server.requests if request.path == "/data/a.jpg"]) == 3


def test_a_photo_with_which_a_worker_dies_holds_up_no_other_and_no_later_turn(
    services: Services, server: HttpServer, embed: Embed, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers |= {f"/data/{i}.jpg": Reply(draw_photo(i)) for i in range(20)}
    import_photos(services, [f"/data/{i}.jpg" for i in range(20)])
    now = 1_000_000.0
    monkeypatch.setattr("backend.loop.embedding.time.time", lambda: now)

    fetch = PhotoFetcher.fetch

    def fetch_or_die(fetcher: PhotoFetcher, url: str) -> bytes:
        if url == "/data/3.jpg":
            raise WorkerKilledError
        return fetch(fetcher, url)

    monkeypatch.setattr(PhotoFetcher, "fetch", fetch_or_die)
    with pytest.raises(WorkerKilledError):
        embed()
    assert embedded(services) == []
    assert embed() == 0
    assert embedded(services) == [17, 18, 19, 20]
    now += 31
    with pytest.raises(WorkerKilledError):
        embed()
    assert embedded(services) == [1, 2, 3, 17, 18, 19, 20]
    assert embed() == 0
    assert len(embedded(services)) == 19
    now += 45
    assert embed() == 0
    now += 20
    monkeypatch.setattr(PhotoFetcher, "fetch", fetch)
    assert embed() == 0
    assert len(embedded(services)) == 20
    assert {(photo.failures, photo.retry_at) for photo in photos(services)} == {(0, 0.0)}


def test_a_photo_whose_hash_was_not_kept_is_looked_at_again(
    services: Services, server: HttpServer, embed: Embed
) -> None:
    server.answers["/data/a.jpg"] = Reply(draw_photo(1))
    import_photos(services, ["/data/a.jpg"])
    embed()
    services.store.update_photos(PROJECT, [{"task_id": 1, "phash": None, "group": None}])
    assert embed() == 0
    assert photos(services)[0].group is not None


def test_new_photos_come_before_those_that_failed(
    services: Services, server: HttpServer, embed: Embed, no_waiting: None
) -> None:
    server.answers |= {f"/data/{i}.jpg": Reply(status=500) for i in range(3)}
    import_photos(services, [f"/data/{i}.jpg" for i in range(3)])
    embed()
    server.requests.clear()
    import_photos(services, [f"/data/{i}.jpg" for i in range(20)])
    embed(seconds=0.001)
    assert not {request.path for request in server.requests} & {"/data/0.jpg", "/data/1.jpg", "/data/2.jpg"}


def test_photos_that_time_does_not_suffice_for_are_left(services: Services, server: HttpServer, embed: Embed) -> None:
    server.answers |= {f"/data/{i}.jpg": Reply(draw_photo(i)) for i in range(40)}
    import_photos(services, [f"/data/{i}.jpg" for i in range(40)])
    left = embed(seconds=0.001)
    assert left == 40 - len(embedded(services)) > 0
    assert embed() == 0


def test_failing_photos_are_not_counted_as_left(services: Services, server: HttpServer, embed: Embed) -> None:
    """A turn follows at once while photos are left: it must not go round for ones that cannot be had."""
    import_photos(services, [f"/data/{i}.jpg" for i in range(40)])
    server.answers |= {f"/data/{i}.jpg": Reply(status=503) for i in range(40)}
    embed()
    assert embed(seconds=0) == 0


def test_near_duplicates_share_the_group_of_those_before(services: Services, server: HttpServer, embed: Embed) -> None:
    server.answers |= {"/data/a.jpg": Reply(draw_photo(1)), "/data/b.jpg": Reply(draw_photo(2))}
    import_photos(services, ["/data/a.jpg", "/data/b.jpg"])
    embed()
    server.answers["/data/a-again.jpg"] = Reply(draw_photo(1, damage="intact"))
    import_photos(services, ["/data/a.jpg", "/data/b.jpg", "/data/a-again.jpg"])
    embed()
    first, second, again = photos(services)
    assert first.group == again.group != second.group


def test_drawn_pictures_are_no_near_duplicates(services: Services, server: HttpServer, embed: Embed) -> None:
    """Other tests rely on it."""
    server.answers |= {f"/data/{i}.jpg": Reply(draw_photo(i)) for i in range(60)}
    import_photos(services, [f"/data/{i}.jpg" for i in range(60)])
    embed()
    hashes = [int(photo.phash or "", 16) for photo in photos(services)]
    assert min(hamming(a, b) for i, a in enumerate(hashes) for b in hashes[:i]) > 6


def test_a_changed_address_is_embedded_anew(services: Services, server: HttpServer, embed: Embed) -> None:
    server.answers |= {"/data/bad.jpg": Reply(b"no photo"), "/data/good.jpg": Reply(draw_photo(2))}
    import_photos(services, ["/data/bad.jpg"])
    embed()
    import_photos(services, ["/data/good.jpg"])
    embed()
    assert embedded(services) == [1]


def test_the_token_of_label_studio_opens_its_photos(services: Services, server: HttpServer, embed: Embed) -> None:
    def guarded(request: Request) -> Reply:
        return Reply(draw_photo(1)) if "authorization" in request.headers else Reply(status=401)

    server.answers["/data/a.jpg"] = guarded
    import_photos(services, ["/data/a.jpg"])
    embed()
    assert embedded(services) == [1]


def test_progress_is_told(services: Services, server: HttpServer) -> None:
    server.answers |= {f"/data/{i}.jpg": Reply(draw_photo(i)) for i in range(20)}
    import_photos(services, [f"/data/{i}.jpg" for i in range(20)])
    told: list[tuple[str, int, int]] = []
    encoder_id = find_encoder(services.settings.models_dir).name
    embed_new_photos(services, PROJECT, encoder_id, 20, lambda *stage: told.append(stage))
    assert told[-1] == ("embedding photos", 20, 20)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def looks(services: Services) -> list[tuple[int | None, int | None, float | None, float | None]]:
    return [(p.width, p.height, p.sharpness, p.brightness) for p in photos(services)]


def test_the_look_of_a_photo_is_kept_with_its_embedding(services: Services, server: HttpServer, embed: Embed) -> None:
    server.answers |= {"/data/1.jpg": Reply(draw_photo(1)), "/data/2.jpg": Reply(b"no photo")}
    import_photos(services, ["/data/1.jpg", "/data/2.jpg"])
    embed()
    (width, height, sharpness, brightness), unreadable = looks(services)
    assert (width, height) == (192, 128)
    assert sharpness
    assert brightness == pytest.approx(0.4, abs=0.2)
    assert unreadable == (None,) * 4


def test_photos_embedded_before_looks_were_kept_are_measured_later(
    services: Services, server: HttpServer, embed: Embed
) -> None:
    server.answers |= {f"/data/{i}.jpg": Reply(draw_photo(i)) for i in range(20)}
    import_photos(services, [f"/data/{i}.jpg" for i in range(20)])
    embed()
    before = looks(services)
    nothing: dict[str, None] = dict.fromkeys(("width", "height", "sharpness", "brightness"))
    services.store.update_photos(PROJECT, [{"task_id": p.task_id, **nothing} for p in photos(services)])
    del server.answers["/data/7.jpg"]
    look_at_kept_photos(services, PROJECT, lambda *_: None)
    measured = looks(services)
    assert measured.pop(7) == (None,) * 4
    np.testing.assert_allclose(np.array(measured, float), np.array(before[:7] + before[8:], float), rtol=0.05)
