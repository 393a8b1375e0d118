import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from backend import photo_pipeline
from backend.photo_pipeline import EncodedPhoto, PhotoFacts, PhotoPipeline
from backend.services import Services
from carcond.arrays import FloatArray
from carcond.data.images import decode_photo, measure_image, perceptual_hash
from carcond.errors import EncoderError, PhotoFetchError, UnreadableImageError
from carcond.model.encoder import BATCH_SIZE, Encoder
from tests.backend.drawings import draw_photo
from tests.backend.http_server import HttpServer, Reply, Request
from tests.conftest import MakeEncoder

PATIENCE_S = 30.0


@pytest.fixture
def pipeline(services: Services) -> PhotoPipeline:
    return services.photo_pipeline


@pytest.fixture
def encoder(services: Services) -> Encoder:
    return services.encoder(services.encoder_id())


@pytest.fixture
def batches(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of photos of the encoder's runs."""
    sizes: list[int] = []
    embed = encoder.embed

    def counted(pixels: FloatArray) -> FloatArray:
        sizes.append(len(pixels))
        return embed(pixels)

    monkeypatch.setattr(encoder, "embed", counted)
    return sizes


class Gate:
    """Answers with a photo, once it is open."""

    def __init__(self, seed: int) -> None:
        self._photo = draw_photo(seed)
        self._open = threading.Event()
        self.asked = threading.Event()

    def __call__(self, _: Request) -> Reply:
        self.asked.set()
        assert self._open.wait(PATIENCE_S)
        return Reply(self._photo)

    def open(self) -> None:
        self._open.set()


def serve(server: HttpServer, count: int) -> list[str]:
    server.answers |= {f"/data/{i}.jpg": Reply(draw_photo(i)) for i in range(count)}
    return [f"/data/{i}.jpg" for i in range(count)]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def embedding(found: object) -> FloatArray:
    assert isinstance(found, EncodedPhoto)
    return found.embedding


def test_photos_come_in_order_as_the_encoder_sees_each(
    pipeline: PhotoPipeline, encoder: Encoder, server: HttpServer
) -> None:
    urls = serve(server, 3 * BATCH_SIZE + 1)[::-1]
    found = pipeline.request(encoder, urls).results()
    assert list(found) == urls
    alone = [encoder.embed_photo(draw_photo(int(url[6:-4])), 10**6) for url in urls]
    np.testing.assert_allclose([embedding(each) for each in found.values()], alone, rtol=1e-4, atol=1e-6)


def test_photos_are_encoded_in_full_batches(
    pipeline: PhotoPipeline, encoder: Encoder, server: HttpServer, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo_pipeline, "_FULL_BATCH_WAIT_S", PATIENCE_S)
    pipeline.request(encoder, serve(server, 2 * BATCH_SIZE + 3)).results()
    assert batches == [BATCH_SIZE, BATCH_SIZE, 3]


def test_an_encoder_of_many_tiles_takes_fewer_photos_at_once(
    services: Services, server: HttpServer, make_tiny_encoder: MakeEncoder
) -> None:
    directory = make_tiny_encoder(services.settings.models_dir, 1, views=(32, 64))
    two_views = services.encoder(directory.name)
    assert two_views.batch_size == BATCH_SIZE // two_views.card.tiles
    found = services.photo_pipeline.request(two_views, serve(server, 5)).results()
    alone = [two_views.embed_photo(draw_photo(i), 10**6) for i in range(5)]
    np.testing.assert_allclose([embedding(each) for each in found.values()], alone, rtol=1e-4, atol=1e-6)


def test_a_slow_photo_does_not_keep_others_from_the_encoder(
    pipeline: PhotoPipeline, encoder: Encoder, server: HttpServer
) -> None:
    urls = serve(server, 6)
    slow = Gate(2)
    server.answers[urls[2]] = slow
    request = pipeline.request(encoder, urls)
    wait_until(lambda: sum(future.done() for future in request.futures.values()) == 5)
    slow.open()
    assert len(request.results()) == 6


def test_photos_that_fail_touch_no_other(pipeline: PhotoPipeline, encoder: Encoder, server: HttpServer) -> None:
    server.answers |= {"/data/bad.jpg": Reply(b"no photo"), "/data/cut.jpg": Reply(draw_photo(1)[:400])}
    bad = ["/data/bad.jpg", "/data/gone.jpg", "/data/cut.jpg", "http://169.254.169.254/", ""]
    good = serve(server, 2 * photo_pipeline._DECODED)
    found = pipeline.request(encoder, [*bad, *good, *[f"/data/cut.jpg?{i}" for i in range(40)]]).results()
    assert [type(found[url]) for url in bad] == [
        UnreadableImageError, PhotoFetchError, UnreadableImageError, PhotoFetchError, PhotoFetchError,
    ]  # fmt: skip
    assert all(isinstance(found[url], EncodedPhoto) for url in good)


def test_a_broken_encoder_is_reported_for_each_photo(
    pipeline: PhotoPipeline, encoder: Encoder, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: FloatArray) -> FloatArray:
        raise EncoderError("out of memory")

    monkeypatch.setattr(encoder, "embed", broken)
    found = pipeline.request(encoder, serve(server, 3 * BATCH_SIZE)).results()
    assert {str(each) for each in found.values()} == {"out of memory"}


def test_photos_are_measured_on_request(pipeline: PhotoPipeline, encoder: Encoder, server: HttpServer) -> None:
    urls = serve(server, 2)
    data = draw_photo(1)
    image = decode_photo(data, target=encoder.spec.size, max_pixels=10**6)
    found = pipeline.request(encoder, urls, measure=True).results()[urls[1]]
    assert isinstance(found, EncodedPhoto)
    assert found.facts == PhotoFacts(perceptual_hash(image), measure_image(data, image))
    plain = pipeline.request(encoder, urls).results()[urls[1]]
    assert isinstance(plain, EncodedPhoto)
    assert plain.facts is None


def test_a_photo_that_two_ask_for_at_once_is_fetched_and_encoded_once(
    pipeline: PhotoPipeline, encoder: Encoder, server: HttpServer, batches: list[int]
) -> None:
    slow = Gate(1)
    server.answers["/data/slow.jpg"] = slow
    found: dict[int, FloatArray] = {}

    def ask(number: int) -> None:
        results = pipeline.request(encoder, ["/data/slow.jpg", f"/data/{number}.jpg", "/data/slow.jpg"]).results()
        found[number] = embedding(results["/data/slow.jpg"])

    serve(server, 2)
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: {"/data/0.jpg", "/data/1.jpg"} <= {request.path for request in server.requests})
    wait_until(lambda: sum(batches) == 2)
    slow.open()
    for thread in threads:
        thread.join()
    assert [request.path for request in server.requests].count("/data/slow.jpg") == 1
    assert sum(batches) == 3
    np.testing.assert_array_equal(found[0], found[1])


def test_a_photo_is_fetched_again_by_a_later_request(
    pipeline: PhotoPipeline, encoder: Encoder, server: HttpServer
) -> None:
    """It may be another picture by then."""
    urls = serve(server, 1)
    for _ in range(2):
        pipeline.request(encoder, urls).results()
    assert len(server.requests) == 2


def test_time_that_is_over_leaves_out_what_is_not_ready_and_fetches_no_more(
    pipeline: PhotoPipeline, encoder: Encoder, server: HttpServer
) -> None:
    urls = serve(server, 20)
    gates = [Gate(i) for i in range(3, 20)]
    server.answers |= dict(zip(urls[3:], gates, strict=True))
    request = pipeline.request(encoder, urls)
    wait_until(lambda: sum(future.done() for future in request.futures.values()) == 3)
    assert list(request.results(seconds=0)) == urls[:3]
    for gate in gates:
        gate.open()
    # A further request finds free threads, and the photos that were on their way are not waited for by anybody.
    assert len(pipeline.request(encoder, urls[:1]).results()) == 1
    wait_until(lambda: not pipeline._takers)
    assert len(server.requests) <= 3 + photo_pipeline.FETCHES_PER_REQUEST + 1


@pytest.mark.parametrize("requests", [1, 8])
def test_large_requests_do_not_keep_a_small_one_waiting(
    pipeline: PhotoPipeline, encoder: Encoder, server: HttpServer, requests: int
) -> None:
    urls = serve(server, 1)
    stuck = [[Gate(i) for i in range(10)] for _ in range(requests)]
    large = []
    for number, gates in enumerate(stuck):
        addresses = [f"/data/stuck-{number}-{i}.jpg" for i in range(len(gates))]
        server.answers |= dict(zip(addresses, gates, strict=True))
        large.append(pipeline.request(encoder, addresses))
    at_once = photo_pipeline.FETCHES_PER_REQUEST
    assert all(gate.asked.wait(PATIENCE_S) for gates in stuck for gate in gates[:at_once])
    assert len(pipeline.request(encoder, urls).results(seconds=PATIENCE_S)) == 1
    assert not any(gate.asked.is_set() for gates in stuck for gate in gates[at_once:])
    for request, gates in zip(large, stuck, strict=True):
        request.close()
        for gate in gates:
            gate.open()


def test_many_requests_share_a_limited_number_of_threads(
    pipeline: PhotoPipeline, encoder: Encoder, server: HttpServer
) -> None:
    before = set(threading.enumerate())
    urls = serve(server, 60)
    requests = [pipeline.request(encoder, urls[i : i + 20]) for i in range(40)]
    assert sum(len(request.results()) for request in requests) == 40 * 20
    ours = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("photo-")]
    assert len(ours) <= photo_pipeline._FETCHERS + 1


def test_nothing_is_waited_for_where_nothing_is_asked_for(pipeline: PhotoPipeline, encoder: Encoder) -> None:
    assert pipeline.request(encoder, []).results() == {}
