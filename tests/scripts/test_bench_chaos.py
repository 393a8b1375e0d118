"""Labels that the chaos benchmark counts as lost, doubled or changed."""

import pytest

from scripts.bench_chaos import difference
from scripts.labellers.ledger import Meant

INTACT, DAMAGED = Meant({"damage": "intact"}), Meant({"damage": "damaged"})


@pytest.mark.parametrize(
    ("held", "saved", "submitted", "expected"),
    [
        ([INTACT], INTACT, INTACT, ""),
        ([], INTACT, INTACT, "lost"),
        ([INTACT, INTACT], INTACT, INTACT, "doubled"),
        ([DAMAGED], INTACT, INTACT, "changed"),
        # Submitted while Label Studio was killed: nobody has been told that it is saved.
        ([], None, INTACT, ""),
        ([INTACT], None, INTACT, ""),
        ([INTACT], INTACT, DAMAGED, ""),
        ([DAMAGED], INTACT, DAMAGED, ""),
        ([], INTACT, DAMAGED, "lost"),
        ([DAMAGED], None, None, "changed"),
    ],
)
def test_a_label_that_was_said_to_be_saved_must_be_there_once(
    held: list[Meant], saved: Meant | None, submitted: Meant | None, expected: str
) -> None:
    assert difference(held, saved, submitted) == expected
