from io import BytesIO

import pytest
from PIL import Image

from backend.dashboard import thumbnails
from backend.dashboard.thumbnails import Thumbnails
from backend.services import Services
from tests.backend.conftest import API_KEY
from tests.backend.drawings import draw_photo
from tests.backend.http_server import HttpServer, Reply


def large_photo() -> bytes:
    file = BytesIO()
    Image.new("RGB", (2000, 1000), (40, 90, 220)).save(file, "PNG")
    return file.getvalue()


def test_photos_are_shrunk_to_small_jpegs(services: Services, server: HttpServer) -> None:
    server.answers["/data/a.png"] = Reply(large_photo())
    made = Thumbnails(services).of({7: "/data/a.png"})[7]
    picture = Image.open(BytesIO(made.jpeg))
    assert (picture.format, picture.size, made.problem) == ("JPEG", (320, 160), "")


def test_label_studios_token_goes_to_label_studio_and_not_into_the_picture(
    services: Services, server: HttpServer
) -> None:
    server.answers["/data/a.jpg"] = Reply(draw_photo(1))
    made = Thumbnails(services).of({1: "/data/a.jpg"})[1]
    assert server.tokens == [f"Token {API_KEY}"]
    assert API_KEY.encode() not in made.jpeg


def test_a_photo_that_cannot_be_shown_says_why_and_hides_no_other(services: Services, server: HttpServer) -> None:
    server.answers |= {"/data/a.jpg": Reply(draw_photo(1)), "/data/b.jpg": Reply(b"no photo")}
    made = Thumbnails(services).of(
        {1: "/data/a.jpg", 2: "/data/b.jpg", 3: "/data/gone.jpg", 4: "http://evil.example/c.jpg"}
    )
    assert made[1].jpeg
    assert "expected a JPEG" in made[2].problem
    assert "HTTP 404" in made[3].problem
    assert "CARCOND_PHOTO_HOSTS" in made[4].problem


def test_a_photo_is_fetched_once_and_a_failure_is_tried_again(services: Services, server: HttpServer) -> None:
    server.answers["/data/a.jpg"] = Reply(draw_photo(1))
    shelf = Thumbnails(services)
    for _ in range(2):
        shelf.of({1: "/data/a.jpg", 2: "/data/b.jpg"})
    assert [request.path for request in server.requests].count("/data/a.jpg") == 1
    server.answers["/data/b.jpg"] = Reply(draw_photo(2))
    assert shelf.of({2: "/data/b.jpg"})[2].jpeg


def test_only_the_last_ones_are_kept(services: Services, server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails, "_KEPT", 2)
    server.answers |= {f"/data/{i}.jpg": Reply(draw_photo(i)) for i in range(3)}
    shelf = Thumbnails(services)
    for i in (0, 1, 0, 2, 0, 1):
        shelf.of({i: f"/data/{i}.jpg"})
    assert [request.path for request in server.requests] == ["/data/0.jpg", "/data/1.jpg", "/data/2.jpg", "/data/1.jpg"]
