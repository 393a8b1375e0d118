"""One simulated annotator in a browser, at a given pace, with occasional other actions than labelling."""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from playwright.sync_api import Error

from backend.label_studio.label_config import LabelBinding
from carcond.taxonomy import TASK_BY_KEY
from scripts.labellers.accounts import Account
from scripts.labellers.deeds import Deed
from scripts.labellers.ledger import Meant
from scripts.labellers.notebook import Labelled, Notebook, Wait
from scripts.labellers.page import LabellingPage, Shown, StuckPageError
from scripts.labellers.traffic import OpenedTask
from scripts.oracle import Truth, file_of_task

_MAX_TROUBLES = 8
_KEY_SHARE = 0.7
_ROWS = 6
# Minimum share of the pace before a choice, as for a human. The page itself takes a change right after a photo has
# loaded for the photo's first state, and makes no draft of it.
_LOOK_SHARE, _LEAST_LOOK_S = 0.4, 1.0
# Time from a key to the next button, in seconds.
_MOVE_S = 0.4
# The page does not wait until its draft is saved.
_AWAY_S = 3.0


class Labeller:
    """Labels the served photos.

    Attributes:
        account: of the annotator.
        page: the labelling page; set by whoever opens the browser.
        before_submit: called right before each press on Submit or Skip.
    """

    def __init__(
        self,
        account: Account,
        notebook: Notebook,
        binding: LabelBinding,
        truth: Mapping[str, Truth],
        *,
        pace_s: float,
        rng: random.Random,
        artefacts: Path,
    ) -> None:
        self.account = account
        self._notebook = notebook
        self._binding = binding
        self._truth = truth
        self._pace_s = pace_s
        self._rng = rng
        self._artefacts = artefacts
        self.before_submit: Callable[[], None] = lambda: None
        self._words = {
            binding.choices[key].word_by_class[each]: (key, each)
            for key in binding.choices
            for each in binding.choices[key].word_by_class
        }
        self._data: dict[int, Mapping[str, str]] = {}
        self._slots: dict[int, int | None] = {}
        self.page: LabellingPage
        self._shown_at = 0.0
        self._deed = Deed.LABEL
        self._unsaved: int | None = None

    # -- events of the page -------------------------------------------------------------------------------------

    def served(self, task: OpenedTask) -> None:
        """Handle a photo from the stream."""
        if self._slots.get(task.task_id) is None:
            self._slots[task.task_id] = task.slot
        self._notebook.serve(self.account.name, self.account.user_id, task)

    def saved(self) -> None:
        """Handle Label Studio's answer that the label submitted last is saved."""
        if self._unsaved is not None:
            self._notebook.ledger.confirm(self._unsaved, self.account.user_id)
            self._unsaved = None

    def met_error(self, text: str) -> None:
        """Handle an error of the page."""
        self._note("page_errors", 0, text)

    def _note(self, kind: str, task_id: int, detail: str) -> None:
        self._notebook.add(kind, self.account.name, task_id, f"{detail} (doing: {self._deed})")

    def _photograph(self, kind: str) -> str:
        self._artefacts.mkdir(parents=True, exist_ok=True)
        path = self._artefacts / f"{self.account.name}-{self._notebook.now():.0f}s-{kind}.png"
        return f"; screenshot {path}" if self.page.photograph(path) else ""

    # -- the stream ---------------------------------------------------------------------------------------------

    def label(self, deeds: Sequence[Deed]) -> None:
        """Do one deed after the other, until all are done or nothing is left to label."""
        troubles = 0
        shown = self.begin()
        for deed in deeds:
            if shown is None:
                return
            before, self._deed = shown.task_id, deed
            try:
                shown = self.do(deed, shown)
                troubles = 0
            except (StuckPageError, Error) as error:
                troubles += 1
                where = self._photograph("stuck")
                self._note("page_errors", before, f"{type(error).__name__}: {str(error)[:300]}{where}")
                if troubles > _MAX_TROUBLES:
                    raise
                shown = self.begin()
            self._notebook.deeds[deed] += 1

    def label_through_faults(self, deeds: Iterable[Deed], is_over: Callable[[], bool]) -> None:
        """Do one deed after the other until it is over; open the list anew after each trouble, as a person would.

        Args:
            deeds: endless, or as many as there are photos.
            is_over: checked before each deed.
        """
        shown = None
        for deed in deeds:
            if is_over():
                return
            self._deed = deed
            try:
                shown = shown or self.begin()
                shown = self.do(deed, shown) if shown else None
            except (StuckPageError, Error) as error:
                self._note("page_errors", 0, f"{type(error).__name__}: {str(error)[:300]}")
                shown = None
                time.sleep(_MOVE_S)

    def begin(self) -> Shown | None:
        """Open the project's list and click "Label All Tasks"."""
        self.page.open_list()
        return self._arrived(self.page.label_all())

    def _arrived(self, shown: Shown | None) -> Shown | None:
        """Record the state in which a photo of the stream opened."""
        self._shown_at = time.monotonic()
        opened = self.page.traffic.opened
        if shown and opened and opened.task_id == shown.task_id and opened.is_fresh:
            is_cold = opened.version and not opened.has_answers and opened.version.endswith("-0000")
            is_left_to_people = opened.has_line and not opened.has_answers
            if not shown.chosen and not is_cold and not is_left_to_people:
                seen = f"prediction of {opened.version!r} in the answer" if opened.version else "no prediction"
                self._note("blank", shown.task_id, f"nothing is chosen; {seen}, queue {opened.queue!r}")
        return shown

    def do(self, deed: Deed, shown: Shown) -> Shown | None:
        """Do one deed with the photo that is open, and return the next one; None when nothing is left."""
        doing = {
            Deed.LABEL: self._label,
            Deed.CHANGE_MIND: self._change_mind,
            Deed.SKIP: self._skip,
            Deed.CORRECT_LATER: self._correct_later,
            Deed.FROM_LIST: self._label_from_list,
            Deed.RELOAD: self._reload,
            Deed.LEAVE: self._leave,
        }
        return doing[deed](shown)

    def _label(self, shown: Shown) -> Shown | None:
        classes = self._right(shown)
        self._answer(shown, classes)
        return self._submit(shown, classes)

    def _change_mind(self, shown: Shown) -> Shown | None:
        self._answer(shown, self._wrong(self._right(shown)))
        self.page.rest(self._pace_s / 3)
        return self._label(shown)

    def _skip(self, shown: Shown) -> Shown | None:
        self._think()
        self._meant(shown, Meant(skipped=True))
        return self._follow(shown, lambda: self.page.skip(shown))

    def _correct_later(self, shown: Shown) -> Shown | None:
        right = self._right(shown)
        wrong = self._wrong(right)
        self._answer(shown, wrong)
        following = self._submit(shown, wrong)
        if following is None or following.task_id == shown.task_id:
            return following
        self.page.rest(self._pace_s / 3)
        earlier = self.page.back(following)
        if earlier.task_id != shown.task_id or not earlier.is_labelled:
            raise StuckPageError(f"expected task {shown.task_id} with its label, went back to {earlier}")
        self._shown_at = time.monotonic()
        self._answer(earlier, right)
        self._submit_in_place(earlier, right)
        return self._again(self.page.forward(earlier), following)

    def _label_from_list(self, shown: Shown) -> Shown | None:
        self.page.leave_to_list()
        row = self.page.open_row(self._rng.randrange(_ROWS))
        self._shown_at = time.monotonic()
        if self._notebook.is_free(row.task_id) and not row.is_labelled:
            right = self._right(row)
            wrong = self._wrong(right)
            self._think()
            self._answer(row, wrong)
            if self._submit_in_place(row, wrong):
                row = self.page.shown() or row
                self._shown_at = time.monotonic()
                self._answer(row, right)
                self._submit_in_place(row, right)
        self.page.rest(max(1.0, self._pace_s / 3))
        self.page.leave_to_list()
        return self._again(self.page.label_all(), shown)

    def _reload(self, shown: Shown) -> Shown | None:
        self._answer(shown, self._wrong(self._right(shown)))
        again = self._again(self.page.reload(), shown)
        return self._label(again) if again else None

    def _leave(self, shown: Shown) -> Shown | None:
        # Other than the pre-label: the page drafts nothing that is not changed, and opens anew with a newer pre-label.
        changed, drafts = self._wrong(self._classes(shown) or self._right(shown)), self.page.traffic.drafts
        self._answer(shown, changed)
        self.page.rest(_MOVE_S)
        self.page.leave_to_list()
        self.page.rest(max(_AWAY_S, self._pace_s))
        again = self._again(self.page.label_all(), shown)
        if again and self._classes(again) != changed:
            saved = f"{self.page.traffic.drafts - drafts} drafts were saved"
            came_back = f"left with {changed}, came back to {self._classes(again)}; {saved}"
            self._note("page_errors", again.task_id, came_back)
        return self._label(again) if again else None

    def _again(self, shown: Shown | None, before: Shown) -> Shown | None:
        """Check that the photo is the one that was open before."""
        self._shown_at = time.monotonic()
        if shown is None or shown.task_id != before.task_id:
            self._note("page_errors", before.task_id, f"expected to come back to it, got {shown}")
        return shown

    # -- answers ------------------------------------------------------------------------------------------------

    def _right(self, shown: Shown) -> dict[str, str]:
        """True classes of a photo, and the pre-labelled ones where not known."""
        opened = self.page.traffic.opened
        if shown.task_id not in self._data and opened and opened.task_id == shown.task_id:
            self._data[shown.task_id] = self._truth[file_of_task(opened.data, self._binding.image_key)].classes
        return self._classes(shown) | dict(self._data.get(shown.task_id, {}))

    def _classes(self, shown: Shown) -> dict[str, str]:
        return dict(self._words[word] for word in shown.chosen if word in self._words)

    def _wrong(self, right: Mapping[str, str]) -> dict[str, str]:
        """The same with one other class."""
        if not right:
            return {}
        key = self._rng.choice(sorted(right))
        others = [each for each in TASK_BY_KEY[key].class_keys if each != right[key]]
        return dict(right) | {key: self._rng.choice(others)}

    def _answer(self, shown: Shown, classes: Mapping[str, str]) -> None:
        look_s = max(_LEAST_LOOK_S, _LOOK_SHARE * self._pace_s)
        self.page.rest(self._shown_at + look_s - time.monotonic())
        now = self.page.shown() or shown
        for key, each in classes.items():
            word = self._binding.choices[key].word_by_class[each]
            if word not in now.chosen:
                self.page.choose(word, now.keys, by_key=self._rng.random() < _KEY_SHARE)
                self.page.rest(_MOVE_S / 2)

    # -- submits ------------------------------------------------------------------------------------------------

    def _think(self) -> None:
        pace = self._pace_s * self._rng.uniform(0.5, 1.5)
        self.page.rest(self._shown_at + pace - time.monotonic())
        self.before_submit()

    def _meant(self, shown: Shown, meant: Meant) -> None:
        self._notebook.submits += 1
        self._notebook.ledger.write(shown.task_id, self.account.user_id, meant)
        self._unsaved = shown.task_id

    def _submit(self, shown: Shown, classes: Mapping[str, str]) -> Shown | None:
        self._think()
        self._meant(shown, Meant(classes))
        by_key = self._rng.random() < _KEY_SHARE
        was_right = self._classes(shown) == classes
        return self._follow(shown, lambda: self.page.submit(shown, by_key=by_key), was_right=was_right)

    def _follow(self, shown: Shown, press: Callable[[], Shown | None], *, was_right: bool = False) -> Shown | None:
        """Press, wait for the next photo, and record the waiting time; continue after a refusal."""
        traffic = self.page.traffic
        refused = len(traffic.refused)
        began = time.monotonic()
        following = press()
        if len(traffic.refused) > refused:
            self._note("refused", shown.task_id, traffic.refused[-1] + self._photograph("refused"))
            return self._arrived(self.page.reload())
        if following:
            saved, served, usable = traffic.accepted_at, traffic.read_at, time.monotonic()
            wait = Wait(usable - began, saved - began, served - saved, usable - served)
            self._notebook.waits.append(wait)
        self._notebook.labelled.append(Labelled(shown.task_id, self._slots.get(shown.task_id), was_right))
        return self._arrived(following)

    def _submit_in_place(self, shown: Shown, classes: Mapping[str, str]) -> bool:
        self._think()
        self._meant(shown, Meant(classes))
        is_accepted = self.page.submit_in_place(shown, by_key=self._rng.random() < _KEY_SHARE)
        if not is_accepted:
            self._note("refused", shown.task_id, self.page.traffic.refused[-1] + self._photograph("refused"))
        return is_accepted
