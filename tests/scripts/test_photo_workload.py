import json

import pytest
from typer.testing import CliRunner

from scripts.bench import app

pytestmark = pytest.mark.slow

# A network of a few thousand weights, made for tests of timm.
_SMALL = ["--source", "static", "--photos", "3", "--views", "224", "--rounds", "1", "--backbone", "test_efficientnet"]


@pytest.mark.parametrize(
    ("command", "ways"),
    [("predict", {"cold": "ms_per_photo", "warm": "warm_ms_per_photo"}), ("embed", {"embed": "ms_per_photo"})],
)
def test_the_product_is_measured_beside_the_usual_way(command: str, ways: dict[str, str]) -> None:
    done = CliRunner().invoke(app, [command, *_SMALL, "--json"], catch_exceptions=False)
    (row,) = json.loads(done.stdout)
    assert (row["views"], row["photos"]) == ("224", 3)
    for name, milliseconds in ways.items():
        assert row[f"{name}_ratio"] == pytest.approx(row["naive_ms_per_photo"] / row[milliseconds], rel=0.1)
    # A tenth of a billion multiplications.
    assert 0.1 < row["gflop_per_photo"] < 0.4
    assert 0 < row["limit_share"] < 1


def test_views_that_cannot_be_seen_are_refused() -> None:
    done = CliRunner().invoke(app, ["predict", "--source", "static", "--views", "none"])
    assert done.exit_code == 2
