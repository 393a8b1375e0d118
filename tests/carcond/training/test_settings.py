from pathlib import Path
from typing import Any

import pytest
import yaml

from carcond.errors import SettingsError
from carcond.training.settings import NO_AUGMENTATION, Augmentation, TrainingSettings, load_training_settings


def test_the_defaults_are_those_of_the_original_classifier() -> None:
    settings = TrainingSettings()
    assert settings.image_size is None
    assert settings.batch_size == 16
    assert settings.epochs == 15
    assert settings.learning_rate == 1e-4
    assert settings.loss_weights == {"cleanliness": 1.0, "damage": 1.2}
    assert settings.validation_share == 0.2
    assert settings.when_unmarked == {}


def test_options_go_before_the_file_and_complete_its_mappings(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text("learning_rate: 1e-3\nepochs: 4\nloss_weights: {damage: 2}\naugmentation: {flip: 0}\n")
    options = {"epochs": 7, "loss_weights": {"cleanliness": "0.5"}}
    settings = load_training_settings(path, options)
    assert settings.learning_rate == 1e-3  # YAML reads it as a text
    assert settings.epochs == 7
    assert settings.loss_weights == {"cleanliness": 0.5, "damage": 2.0}
    assert settings.augmentation == Augmentation(flip=0)


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_an_empty_file_means_the_defaults(tmp_path: Path, text: str) -> None:
    (tmp_path / "train.yaml").write_text(text)
    assert load_training_settings(tmp_path / "train.yaml", {}) == TrainingSettings()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "epoch is no setting; there are image_size"),
        ({"augmentation": {"flips": 0.5}}, "augmentation.flips is no setting; there are flip"),
        ({"epochs": 0}, "epochs: Input should be greater than or equal to 1, got 0"),
        ({"loss_weights": {"rust": 1}}, "got rust=1.0"),
        ({"loss_weights": {"damage": -1}}, "got damage=-1.0"),
        ({"loss_weights": 3}, "loss_weights"),
        ({"when_unmarked": {"damage": "clean"}}, "got damage=clean"),
        ({"when_unmarked": {"rust": "intact"}}, "got rust=intact"),
        ({"class_weights": "some"}, "class_weights"),
        ({"mixed_precision": "int8"}, "mixed_precision"),
    ],
)
def test_what_is_no_setting_or_out_of_range_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match="training settings are not usable") as caught:
        load_training_settings(None, values)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["[1, 2]", "epochs: [", "just words"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "train.yaml").write_text(text)
    with pytest.raises(SettingsError, match=r"train\.yaml"):
        load_training_settings(tmp_path / "train.yaml", {})


def test_a_yaml_file_cannot_make_objects(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text("epochs: !!python/object/apply:os.getpid []\n")
    with pytest.raises(SettingsError, match="cannot be read as YAML"):
        load_training_settings(tmp_path / "train.yaml", {})


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_training_settings(tmp_path / "absent.yaml", {})


def test_no_augmentation_varies_nothing() -> None:
    assert set(NO_AUGMENTATION.model_dump().values()) == {0, 1}
    assert NO_AUGMENTATION.smallest_crop == 1


def test_the_documented_settings_are_the_defaults() -> None:
    text = (Path(__file__).parents[3] / "docs" / "train.md").read_text(encoding="utf-8")
    documented = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    assert documented.keys() == TrainingSettings.model_fields.keys()
    assert TrainingSettings.model_validate(documented) == TrainingSettings()
