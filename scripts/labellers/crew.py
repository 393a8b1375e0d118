"""Several annotators who label one project at once, each in a browser of their own."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import sync_playwright

from backend.label_studio.label_config import LabelBinding, bind_label_config
from carcond.store.store import Store
from scripts.demo_server import CHROMIUM_FLAGS, chromium_program, log_in_as, stay_here
from scripts.labellers.accounts import Account, owner, sign_up
from scripts.labellers.deeds import Deed
from scripts.labellers.labeller import Labeller
from scripts.labellers.notebook import Notebook
from scripts.labellers.page import PATIENCE_S, LabellingPage
from scripts.labellers.traffic import Traffic
from scripts.oracle import Truth, read_truth
from scripts.preflight import StackError
from scripts.stack import Stack

_EMBEDDING_S = 300.0
# Time limit of a deed in seconds beyond the pace: each of its steps may wait.
_DEED_S = 2 * PATIENCE_S


@dataclass(frozen=True)
class Crew:
    """Annotators and the project they label.

    Attributes:
        stack: the running stack.
        chromium: path of the browser.
        project_id: the project.
        truth: file -> its true classes.
        pace_s: mean time per photo, in seconds.
        artefacts: folder for screenshots of failures.
        seed: of the annotators' actions.
    """

    stack: Stack
    chromium: str
    project_id: int
    truth: Mapping[str, Truth]
    pace_s: float
    artefacts: Path
    seed: int = 1

    @property
    def binding(self) -> LabelBinding:
        """Binding of the project's label config."""
        return bind_label_config(self.stack.api().project(self.project_id).label_config)

    def accounts(self, people: int) -> list[Account]:
        """The owner and further annotators, who sign up."""
        accounts = [owner(self.stack)]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=self.chromium, args=CHROMIUM_FLAGS)
            accounts += [sign_up(self.stack, browser, f"person{number}") for number in range(2, people + 1)]
            browser.close()
        return accounts

    def wait_until_served(self, photos: int) -> None:
        """Wait until all photos have an embedding and the first queue is served."""
        environment = self.stack.environment
        encoder = Path(environment["CARCOND_MODELS_DIR"]) / "encoders" / "current"
        encoder_id = encoder.read_text(encoding="utf-8").strip()
        patience_s = _EMBEDDING_S + photos
        deadline = time.monotonic() + patience_s
        store = Store(environment["DATABASE_URL"])
        try:
            while not (
                len(store.embeddings(self.project_id, encoder_id)[0]) >= photos
                and self.stack.api().project(self.project_id).model_version.startswith("carcond-")
            ):
                if time.monotonic() > deadline:
                    raise StackError(f"the photos were not embedded in {patience_s:.0f} s; see the stack's logs")
                time.sleep(0.5)
        finally:
            store.close()

    def label(
        self,
        accounts: Sequence[Account],
        deeds: Sequence[Sequence[Deed]],
        notebook: Notebook,
        *,
        before_submit: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = lambda message: None,
    ) -> None:
        """Run the deeds of all annotators in parallel, and wait for the last one.

        An annotator who does not finish in time is recorded as an error of the page.

        Args:
            accounts: of the annotators.
            deeds: those of each annotator.
            notebook: records the results.
            before_submit: called in each one's thread right before a press on Submit or Skip.
            say: progress callback.
        """
        deadline = time.monotonic() + 120.0 + max(map(len, deeds), default=0) * (1.5 * self.pace_s + 4.0) + _DEED_S
        threads = [
            threading.Thread(
                target=self._sit_down, args=(account, own, notebook, before_submit), name=account.name, daemon=True
            )
            for account, own in zip(accounts, deeds, strict=True)
        ]
        for thread in threads:
            thread.start()
        said = 0
        while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline:
            time.sleep(0.5)
            if len(notebook.labelled) >= said + 10:
                said = len(notebook.labelled)
                counts = {kind: count for kind, count in notebook.figures().items() if isinstance(count, int)}
                say(f"{notebook.now():.0f} s: {counts}")
        for thread in threads:
            if thread.is_alive():
                notebook.add("page_errors", thread.name, 0, "did not come to an end in time")

    def _sit_down(
        self, account: Account, deeds: Sequence[Deed], notebook: Notebook, before_submit: Callable[[], None]
    ) -> None:
        """One thread: open a browser, log in, and label."""
        try:
            with self.seat(account, notebook) as labeller:
                labeller.before_submit = before_submit
                labeller.label(deeds)
        except Exception as error:  # of any kind: the others continue, and the report has it
            notebook.add("page_errors", account.name, 0, f"gave up: {type(error).__name__}: {str(error)[:500]}")

    @contextmanager
    def seat(self, account: Account, notebook: Notebook) -> Iterator[Labeller]:
        """Annotator in a browser of their own, logged in."""
        labeller = Labeller(
            account,
            notebook,
            self.binding,
            self.truth,
            pace_s=self.pace_s,
            rng=random.Random(f"{self.seed} {account.name}"),  # noqa: S311 - no secret
            artefacts=self.artefacts,
        )
        url = self.stack.label_studio_url
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=self.chromium, args=CHROMIUM_FLAGS)
            try:
                page = browser.new_page(viewport={"width": 1400, "height": 900})
                page.route("**/*", stay_here)
                log_in_as(page, url, account.email, account.password)
                traffic = Traffic(page, labeller.served, labeller.saved, labeller.met_error)
                labeller.page = LabellingPage(page, url, self.project_id, traffic)
                yield labeller
            finally:
                notebook.close(account.name)
                browser.close()


def find_chromium() -> str:
    """Path of the browser.

    Raises:
        StackError: there is none.
    """
    chromium = chromium_program()
    if chromium is None:
        raise StackError("Chromium is not installed: apt install chromium")
    return chromium


def gather_crew(
    stack: Stack,
    title: str,
    folder: Path,
    labels: Path,
    *,
    pace_s: float,
    artefacts: Path,
    seed: int,
    say: Callable[[str], None],
) -> tuple[Crew, int]:
    """Make a project of a folder's photos, and wait until its first queue is served.

    Args:
        stack: a running stack.
        title: of the project.
        folder: photos of the pool.
        labels: CSV of their true classes.
        pace_s: mean time per photo, in seconds.
        artefacts: folder for screenshots of failures.
        seed: of the annotators' actions.
        say: progress callback.

    Returns:
        The crew, and the number of photos.

    Raises:
        StackError: there is no Chromium, or the photos were not embedded in time.
    """
    chromium = find_chromium()
    project_id = stack.provision(title).project_id
    imported = stack.import_photos(project_id, folder)
    say(f"{imported} photos imported; embedding them")
    crew = Crew(stack, chromium, project_id, read_truth(labels), pace_s, artefacts, seed)
    crew.wait_until_served(imported)
    return crew, imported
