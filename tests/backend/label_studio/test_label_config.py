import re
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.label_studio.label_config import BoxBinding, bind_label_config
from backend.label_studio.provision import LABEL_CONFIGS, shipped_label_config
from carcond.errors import LabelConfigError
from carcond.model.damage_box import Box
from carcond.taxonomy import TASKS
from tests.backend import label_configs
from tests.damage import damaged_bytes, damaged_json

ONE_BY_ONE = [
    {"cleanliness": (cleanliness, 0.9), "damage": (damage, 0.6)}
    for cleanliness in ("clean", "slightly_dirty", "very_dirty")
    for damage in ("intact", "damaged")
]


def choices(from_name: str, *words: str) -> dict[str, Any]:
    return {"from_name": from_name, "to_name": "image", "type": "choices", "value": {"choices": list(words)}}


def damage_config(*attributes: str) -> str:
    tags = "".join(f"<Choice {given}/>" for given in attributes)
    return config(f'<Choices name="d" toName="image">{tags}</Choices>')


def config(choices_tag: str, image: str = '<Image name="image" value="$image"/>') -> str:
    return f"<View>{image}{choices_tag}</View>"


@pytest.mark.parametrize("name", label_configs.ALL)
@pytest.mark.parametrize("classes", ONE_BY_ONE, ids=str)
def test_every_prediction_is_valid_in_label_studios_own_eyes(name: str, classes: dict[str, tuple[str, float]]) -> None:
    label_config = label_configs.ALL[name]
    result = bind_label_config(label_config).result(classes)
    assert len(result) == 2
    prediction = {"result": result, "score": 0.5, "model_version": "carcond-0001"}
    assert label_configs.prediction_errors(label_config, prediction) == []


def test_label_studios_own_eyes_see_a_wrong_word() -> None:
    result = bind_label_config(label_configs.RUSSIAN).result(ONE_BY_ONE[0])
    prediction = {"result": result, "score": 0.5, "model_version": "carcond-0001"}
    assert label_configs.prediction_errors(label_configs.ENGLISH, prediction) != []


@pytest.mark.parametrize("name", label_configs.ALL)
@pytest.mark.parametrize("classes", ONE_BY_ONE, ids=str)
def test_what_is_predicted_is_read_back_as_the_same_classes(name: str, classes: dict[str, tuple[str, float]]) -> None:
    binding = bind_label_config(label_configs.ALL[name])
    assert binding.labels(binding.result(classes)) == {task: chosen[0] for task, chosen in classes.items()}


def test_a_binding_names_tags_words_and_the_photos_field() -> None:
    binding = bind_label_config(label_configs.RENAMED)
    assert binding.image_key == "picture"
    assert binding.choices["cleanliness"].from_name == "wash_state"
    assert binding.choices["cleanliness"].to_name == "foto"
    assert binding.choices["cleanliness"].word_by_class == {
        "very_dirty": "Dirty",
        "slightly_dirty": "Dusty",
        "clean": "CLEAN",
    }
    assert binding.choices["damage"].word_by_class == {"intact": "Undamaged", "damaged": "Damaged"}
    assert binding.unknown_words == ("cannot tell",)


def test_a_region_carries_the_probability_of_its_class() -> None:
    (region,) = bind_label_config(label_configs.DAMAGE_ONLY).result({"damage": ("damaged", 0.75)})
    assert region == {
        "id": "carcond-damage",
        "from_name": "damage",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": ["damaged"]},
        "score": 0.75,
    }


def test_a_task_that_the_config_does_not_ask_for_is_not_predicted() -> None:
    binding = bind_label_config(label_configs.DAMAGE_ONLY)
    assert [r["from_name"] for r in binding.result(ONE_BY_ONE[0])] == ["damage"]


def test_a_class_that_the_config_has_no_word_for_is_not_predicted() -> None:
    tag = '<Choices name="c" toName="image"><Choice value="clean"/><Choice value="dirty"/></Choices>'
    binding = bind_label_config(config(tag))
    assert binding.result({"cleanliness": ("slightly_dirty", 0.8)}) == []
    assert len(binding.result({"cleanliness": ("very_dirty", 0.8)})) == 1


def test_an_alias_is_what_is_written_and_read() -> None:
    tag = (
        '<Choices name="d" toName="image"><Choice value="битый" alias="b"/><Choice value="целый" alias="c"/></Choices>'
    )
    binding = bind_label_config(config(tag))
    assert binding.choices["damage"].word_by_class == {"damaged": "b", "intact": "c"}
    assert binding.labels([choices("d", "b")]) == {"damage": "damaged"}


def test_an_alias_that_is_a_word_of_the_taxonomy_tells_the_class_itself() -> None:
    label_config = damage_config('value="X" alias="damaged"', 'value="Y" alias="intact"')
    assert bind_label_config(label_config).labels([choices("d", "intact")]) == {"damage": "intact"}


def test_of_two_words_for_one_class_the_first_is_written_and_both_are_read() -> None:
    binding = bind_label_config(damage_config('value="целая"', 'value="целый"', 'value="битый"'))
    assert binding.choices["damage"].word_by_class["intact"] == "целая"
    assert binding.labels([choices("d", "целый")]) == {"damage": "intact"}


def test_a_tag_belongs_to_the_task_that_most_of_its_values_mean() -> None:
    tag = """<Choices name="odd" toName="image">
        <Choice value="damaged"/><Choice value="clean"/><Choice value="dirty"/></Choices>"""
    binding = bind_label_config(config(tag))
    assert list(binding.choices) == ["cleanliness"]
    assert binding.unknown_words == ("damaged",)


def test_the_first_of_two_tags_for_one_task_counts() -> None:
    tags = "".join(
        f'<Choices name="{name}" toName="image"><Choice value="intact"/><Choice value="damaged"/></Choices>'
        for name in ("first", "second")
    )
    assert bind_label_config(config(tags)).choices["damage"].from_name == "first"


def test_the_photo_is_that_of_the_bound_tag_and_not_of_another_picture() -> None:
    images = '<Image name="logo" value="$logo"/><Image name="image" value="$photo"/>'
    tags = '<RectangleLabels name="box" toName="logo"><Label value="text"/></RectangleLabels>'
    tags += '<Choices name="d" toName="image"><Choice value="intact"/><Choice value="damaged"/></Choices>'
    assert bind_label_config(config(tags, images)).image_key == "photo"


def test_choices_inside_further_views_are_found() -> None:
    tag = """<View><View><Choices name="d" toName="image"><View><Choice value="intact"/></View>
        <View><Choice value="damaged"/></View></Choices></View></View>"""
    assert set(bind_label_config(config(tag)).choices["damage"].word_by_class) == {"intact", "damaged"}


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ([], {}),
        ([choices("damage", "intact")], {"damage": "intact"}),
        (
            [choices("cleanliness", "clean"), choices("damage", "damaged")],
            {"cleanliness": "clean", "damage": "damaged"},
        ),
        ([choices("damage", "intact", "damaged")], {}),
        ([choices("damage", "intact"), choices("damage", "damaged")], {}),
        ([choices("damage", "intact"), choices("damage", "intact")], {"damage": "intact"}),
        ([choices("damage", "no word of ours")], {}),
        ([choices("cleanliness", "damaged")], {}),
        ([{"from_name": "damage", "value": {"choices": ["intact"]}}], {"damage": "intact"}),
    ],
)
def test_labels_are_what_an_annotation_states(result: list[dict[str, Any]], expected: dict[str, str]) -> None:
    assert bind_label_config(label_configs.ENGLISH).labels(result) == expected


def test_words_from_before_a_translation_keep_their_meaning() -> None:
    result = [choices("cleanliness", "slightly dirty"), choices("damage", "intact")]
    expected = {"cleanliness": "slightly_dirty", "damage": "intact"}
    assert bind_label_config(label_configs.RUSSIAN).labels(result) == expected


def test_a_damage_box_says_damaged_and_no_box_says_nothing() -> None:
    binding = bind_label_config(label_configs.ENGLISH)
    box = {"from_name": "boxes", "type": "rectanglelabels", "value": {"x": 1, "rectanglelabels": ["damage"]}}
    assert binding.labels([box]) == {"damage": "damaged"}
    assert binding.labels([choices("cleanliness", "clean")]) == {"cleanliness": "clean"}
    assert binding.labels([box, choices("damage", "intact")]) == {}


@pytest.mark.parametrize(
    "region",
    [
        {},
        {"from_name": "damage"},
        {"from_name": "damage", "value": None},
        {"from_name": "damage", "value": {"choices": None}},
        {"from_name": "damage", "value": {"choices": "intact"}},
        {"from_name": "damage", "value": {"choices": [["dirty", "very"], 7, None]}},
        {"from_name": None, "value": {"text": ["a remark"]}},
        {"id": "a", "type": "relation", "from_id": "x", "to_id": "y"},
    ],
    ids=str,
)
def test_odd_regions_state_nothing(region: dict[str, Any]) -> None:
    assert bind_label_config(label_configs.ENGLISH).labels([region]) == {}


@pytest.mark.parametrize(
    "label_config",
    [
        "",
        "   ",
        "<View>",
        "no xml",
        "<View/>",
        '<View><Image name="image" value="$image"/></View>',
        config('<Choices name="w" toName="image"><Choice value="sun"/><Choice value="rain"/></Choices>'),
        config('<Choices name="d" toName="gone"><Choice value="intact"/><Choice value="damaged"/></Choices>'),
        config('<Choices name="d"><Choice value="intact"/><Choice value="damaged"/></Choices>'),
        '<?xml version="1.0" encoding="utf-8"?><View/>',
        '<View><Text name="t" value="$t"/><Choices name="d" toName="t"><Choice value="intact"/></Choices></View>',
        config('<RectangleLabels name="d" toName="image"><Label value="damage"/></RectangleLabels>'),
    ],
)
def test_a_config_that_asks_for_neither_task_is_refused(label_config: str) -> None:
    with pytest.raises(LabelConfigError):
        bind_label_config(label_config)


def test_the_refusal_lists_the_words_that_are_looked_for() -> None:
    with pytest.raises(LabelConfigError) as caught:
        bind_label_config("<View/>")
    for task in TASKS:
        for condition in task.classes:
            assert condition.en in str(caught.value)


def test_an_image_without_a_field_is_refused() -> None:
    with pytest.raises(LabelConfigError, match="name its field"):
        bind_label_config(
            config('<Choices name="d" toName="i"><Choice value="intact"/></Choices>', '<Image name="i" value="$"/>')
        )


@pytest.mark.parametrize("name", LABEL_CONFIGS)
def test_a_shipped_config_binds_both_tasks_with_all_classes(name: str) -> None:
    binding = bind_label_config(shipped_label_config(name))
    assert {task: set(b.word_by_class) for task, b in binding.choices.items()} == {
        t.key: set(t.class_keys) for t in TASKS
    }
    assert binding.unknown_words == ()
    assert (binding.boxes is not None, binding.reason_to) == ((False, "") if name == "plain" else (True, "image"))
    assert binding.confidence_to == ("image" if name == "plain" else "")
    assert binding.language == ("ru" if name == "russian" else "en")


def test_the_first_label_for_damage_takes_boxes_and_only_our_own_line_the_reason() -> None:
    binding = bind_label_config(label_configs.BOXES)
    assert binding.boxes == BoxBinding("parts", "image", "hit")
    assert binding.reason_to == "image"
    assert bind_label_config(label_configs.RENAMED).reason_to == ""


def test_boxes_are_not_suggested_where_damage_is_not_asked_for() -> None:
    tags = """<RectangleLabels name="b" toName="image"><Label value="damaged"/></RectangleLabels>
        <Choices name="c" toName="image"><Choice value="clean"/><Choice value="very dirty"/></Choices>"""
    assert bind_label_config(config(tags)).boxes is None
    with pytest.raises(ValueError, match="tag for boxes"):
        bind_label_config(config(tags)).box_region(Box(0, 0, 1, 1), 0.9)


@pytest.mark.parametrize("label_config", [label_configs.BOXES, shipped_label_config("russian")])
def test_a_box_and_a_reason_are_valid_in_label_studios_own_eyes(label_config: str) -> None:
    binding = bind_label_config(label_config)
    regions = [binding.box_region(Box(0.25, 0.5, 0.125, 0.3), 0.9), binding.reason_region("carcond-0007: damaged 90 %")]
    prediction = {"result": binding.result(ONE_BY_ONE[1]) + regions, "score": 0.5, "model_version": "carcond-0007"}
    assert label_configs.prediction_errors(label_config, prediction) == []
    assert regions[0]["value"] | {"x": 25, "y": 50, "width": 12.5, "height": 30} == regions[0]["value"]


def test_confidences_are_valid_in_label_studios_own_eyes_and_are_no_answers() -> None:
    plain = shipped_label_config()
    binding = bind_label_config(plain)
    regions = binding.confidence_regions("clean 83 %, damaged 71 % · carcond-0012")
    prediction = {"result": binding.result(ONE_BY_ONE[1]) + regions, "score": 0.5, "model_version": "carcond-0012"}
    assert label_configs.prediction_errors(plain, prediction) == []
    assert binding.labels(regions) == {}


def test_confidences_are_not_written_where_they_would_be_submitted() -> None:
    alone = shipped_label_config().replace('name="carcond_shown"', 'name="mine"')
    assert bind_label_config(alone).confidence_to == ""


def boxed(word: str = "hit", origin: str = "prediction") -> dict[str, Any]:
    value = {"x": 1, "y": 1, "width": 9, "height": 9, "rectanglelabels": [word]}
    return {"from_name": "parts", "to_name": "image", "type": "rectanglelabels", "value": value, "origin": origin}


REASON = {"from_name": "carcond", "to_name": "image", "type": "textarea", "value": {"text": ["damaged"]}}


@pytest.mark.parametrize("answer", ["intact", "damaged"])
def test_beside_an_answer_a_suggested_box_that_nobody_touched_says_nothing(answer: str) -> None:
    binding = bind_label_config(label_configs.BOXES)
    for result in ([boxed("damaged"), choices("damage", answer)], [choices("damage", answer), boxed("damaged")]):
        assert binding.labels(result) == {"damage": answer}


@pytest.mark.parametrize("origin", ["prediction-changed", "manual"])
def test_a_box_that_was_drawn_or_moved_contradicts_intact(origin: str) -> None:
    binding = bind_label_config(label_configs.BOXES)
    assert binding.labels([choices("damage", "intact"), boxed("damaged", origin)]) == {}
    assert binding.labels([choices("damage", "damaged"), boxed("damaged", origin)]) == {"damage": "damaged"}


def test_a_box_that_was_left_in_a_submitted_annotation_without_an_answer_states_damage() -> None:
    binding = bind_label_config(label_configs.BOXES)
    assert binding.labels([choices("cleanliness", "clean"), boxed("damaged")]) == {
        "cleanliness": "clean",
        "damage": "damaged",
    }


def test_the_reason_is_never_a_label() -> None:
    assert bind_label_config(label_configs.BOXES).labels([REASON]) == {}


# Configs that mean harm, or nothing


def bombs() -> dict[str, str]:
    """Configs of some kilobytes or megabytes that would cost a parser gigabytes or minutes."""
    laughs = "".join(f'<!ENTITY l{n + 1} "' + 10 * f"&l{n};" + '">' for n in range(9))
    doctype = f'<!DOCTYPE v [<!ENTITY l0 "lol">{laughs}]>'
    flags = "".join(f'<View indexFlag="{n}"/>' for n in range(4_000))
    targets = ",".join("i" * 50_000)
    return {
        "a billion laughs": f'{doctype}<View><Header value="&l9;"/></View>',
        "quadratic": '<!DOCTYPE v [<!ENTITY l "' + "x" * 90_000 + '">]><View>' + "&l;" * 30_000 + "</View>",
        "a file": '<!DOCTYPE v [<!ENTITY f SYSTEM "file:///etc/passwd">]><View><Header value="a"/>&f;</View>',
        "an address": '<!DOCTYPE v SYSTEM "http://127.0.0.1:1/config.dtd"><View/>',
        "megabytes": "<View>" + '<Choice value="clean"/>' * 500_000 + "</View>",
        "one long word": '<View><Header value="' + "x" * 5_000_000 + '"/></View>',
        "deep": "<View>" * 20_000 + "</View>" * 20_000,
        "many tags": f"<View>{'<a/>' * 40_000}</View>",
        "flags by targets": f'<View>{flags}<Choices name="c" toName="{targets}"/></View>',
    }


@pytest.mark.parametrize("name", bombs())
def test_a_config_that_would_take_memory_or_time_is_refused_at_once(name: str) -> None:
    bomb = bombs()[name]
    tracemalloc.start()
    began = time.monotonic()
    try:
        with pytest.raises(LabelConfigError, match="expected a label config"):
            bind_label_config(bomb)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < 2
    assert peak < 20_000_000


def test_a_config_at_the_limits_is_bound_within_seconds() -> None:
    words = "".join(f'<Choice value="word {n}" alias="w{n}"/>' for n in range(4_000))
    flags = "".join(f'<View indexFlag="{n}"/>' for n in range(20))
    wanted = f'<Choices name="d" toName="image"><Choice value="intact"/><Choice value="damaged"/>{words}</Choices>'
    began = time.monotonic()
    binding = bind_label_config(config(wanted + flags))
    assert time.monotonic() - began < 5
    assert len(binding.unknown_words) == 4_000


_NAMES = st.sampled_from(["image", "d", "c", "carcond", "carcond_confidence", "carcond_shown", "", "a,b", "$image"])
_WORDS = st.sampled_from(["clean", "very dirty", "damaged", "intact", "чистая", "", "&amp;", "{{idx}}", "$x", "\ud800"])
_TAGS = st.sampled_from(
    [
        "View",
        "Image",
        "Choices",
        "Choice",
        "RectangleLabels",
        "Label",
        "TextArea",
        "Repeater",
        "Relation",
        "Filter",
        "é",
    ]
)
_ATTRIBUTES = st.dictionaries(
    st.sampled_from(["name", "toName", "value", "alias", "indexFlag", "perRegion", "whenTagName", "apiUrl", "xmlns"]),
    _NAMES | _WORDS,
    max_size=4,
)
_ELEMENTS = st.recursive(
    st.tuples(_TAGS, _ATTRIBUTES, st.just("") | _WORDS),
    lambda inner: st.tuples(_TAGS, _ATTRIBUTES, st.lists(inner, max_size=4)),
    max_leaves=12,
)


def to_xml(element: Any) -> str:
    tag, attributes, content = element
    stated = "".join(f' {name}="{value}"' for name, value in attributes.items())
    inside = content if isinstance(content, str) else "".join(map(to_xml, content))
    return f"<{tag}{stated}>{inside}</{tag}>"


@st.composite
def damaged_configs(draw: st.DrawFn) -> str:
    """A shipped or a test's config, with bytes damaged, or with tags put into it."""
    original = draw(st.sampled_from(sorted(label_configs.ALL.values())))
    if draw(st.booleans()):
        return draw(damaged_bytes([original.encode()])).decode("utf-8", draw(st.sampled_from(["replace", "ignore"])))
    place = draw(st.sampled_from([found.start() for found in re.finditer("<", original)]))
    return original[:place] + to_xml(draw(_ELEMENTS)) + original[place:]


@given(label_config=damaged_configs() | _ELEMENTS.map(to_xml) | st.text(max_size=40))
def test_any_config_is_bound_or_refused_and_what_is_bound_can_be_used(label_config: str) -> None:
    try:
        binding = bind_label_config(label_config)
    except LabelConfigError:
        return
    assert binding.image_key
    assert binding.language in ("en", "ru")
    for classes in ONE_BY_ONE:
        stated = binding.labels(binding.result(classes))
        # A tag of one name may answer both tasks, or a class may have no word: then it stays unknown.
        assert {key: classes[key][0] for key in stated} == stated
    if binding.boxes:
        assert binding.box_region(Box(0, 0, 1, 1), 0.5)


@given(result=damaged_json(bind_label_config(label_configs.ENGLISH).result(ONE_BY_ONE[0])))
def test_any_result_of_an_annotation_is_read_as_classes_or_none(result: Any) -> None:
    regions = [region for region in result if isinstance(region, dict)] if isinstance(result, list) else []
    assert set(bind_label_config(label_configs.ENGLISH).labels(regions)) <= {"cleanliness", "damage"}
