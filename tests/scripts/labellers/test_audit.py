from collections.abc import Iterator
from typing import cast

from backend.label_studio.client import Annotation, LabelStudioApi, LabelStudioTask
from backend.label_studio.label_config import bind_label_config
from scripts.labellers.audit import label_studio_differences, snapshot_differences
from scripts.labellers.ledger import Ledger, Meant

CONFIG = """
<View>
  <Image name="image" value="$image"/>
  <Choices name="damage" toName="image"><Choice value="intact"/><Choice value="damaged"/></Choices>
</View>
"""
BINDING = bind_label_config(CONFIG)


class FakeApi:
    """Holds the given annotations: task id, user id, damage or None for skipped."""

    def __init__(self, *rows: tuple[int, int, str | None]) -> None:
        self.rows = rows

    def tasks(self, project_id: int) -> Iterator[LabelStudioTask]:
        for number, (task_id, user, damage) in enumerate(self.rows):
            result = BINDING.result({"damage": (damage, 1.0)}) if damage else []
            yield LabelStudioTask(task_id, {}, "", (Annotation(number, user, damage is None, "", result),), ())


def differences(ledger: Ledger, *rows: tuple[int, int, str | None]) -> list[str]:
    return label_studio_differences(ledger, cast(LabelStudioApi, FakeApi(*rows)), 1, BINDING)


def meant() -> Ledger:
    ledger = Ledger()
    ledger.write(1, 10, Meant({"damage": "damaged"}))
    ledger.write(2, 10, Meant(skipped=True))
    return ledger


def test_what_was_meant_and_is_held_is_no_difference() -> None:
    assert differences(meant(), (1, 10, "damaged"), (2, 10, None)) == []


def test_a_lost_a_changed_a_doubled_and_a_strange_annotation_are_differences() -> None:
    held: tuple[tuple[int, int, str | None], ...] = ((1, 10, "damaged"), (2, 10, None))
    assert len(differences(meant(), held[0])) == 1
    assert len(differences(meant(), (1, 10, "intact"), held[1])) == 1
    assert len(differences(meant(), held[0], *held)) == 1
    assert len(differences(meant(), *held, (3, 10, "intact"))) == 1
    assert len(differences(meant(), (1, 11, "damaged"), held[1])) == 2


def test_the_version_has_to_know_each_label_and_no_other() -> None:
    known = {"task": 1, "classes": {"damage": "damaged"}}
    assert snapshot_differences(meant(), [known]) == []
    assert len(snapshot_differences(meant(), [])) == 1
    assert len(snapshot_differences(meant(), [known | {"classes": {"damage": "intact"}}])) == 1
    assert len(snapshot_differences(meant(), [known, known | {"task": 2}])) == 1
