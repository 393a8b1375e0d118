import re
from html.parser import HTMLParser
from typing import Any

import pytest

from carcond.reports.card_page import card_page
from carcond.reports.card_text import number
from tests.carcond.made_cards import broken_cards, full_card, old_card

_VOID = {"meta", "link", "circle", "line", "br", "img"}


class _Page(HTMLParser):
    """Elements, texts and ids of a page; fails where an end tag does not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def count(self, name: str, **attributes: str) -> int:
        return sum(tag == name and attributes.items() <= attrs.items() for tag, attrs in self.tags)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    return full_card()


@pytest.fixture(scope="module")
def page(card: dict[str, Any]) -> _Page:
    return _Page(card_page(card))


def test_the_page_asks_for_nothing_and_runs_nothing(card: dict[str, Any], page: _Page) -> None:
    assert "://" not in card_page(card)
    assert "url(" not in card_page(card)
    assert page.count("script") == page.count("img") == page.count("iframe") == 0
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    (policy,) = [attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_a_hostile_name_is_shown_as_text(card: dict[str, Any], page: _Page) -> None:
    shown = '<script>alert("x")</script>[bold]&{{ 7*7 }}\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}'
    assert shown in page.texts
    assert "<script" not in card_page(card)


@pytest.mark.parametrize("path", ["version", "created", "parent", "encoder_id"])
def test_no_heading_lets_markup_through(path: str) -> None:
    html = card_page({path: "</title><script>x</script>"})
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_the_gate_and_task_names_let_no_markup_through() -> None:
    evil = "<img src=x onerror=alert(1)>"
    card = {
        "gate": {"accepted": False, "reason": evil, "against": evil, "tasks": {evil: {"tested": False}}},
        "holdout": {evil: {"photos": 1, "accuracy": 1.0, "classes": {evil: {}}, "confusion": [[1]]}},
    }
    assert _Page(card_page(card)).count("img") == 0


def test_the_page_has_the_figures_of_the_card(card: dict[str, Any], page: _Page) -> None:
    for metrics in card["holdout"].values():
        low, high = metrics["accuracy_interval"]
        for words in (
            f"{100 * metrics['accuracy']:.1f} %",
            f"{100 * low:.1f} % to {100 * high:.1f} %",
            number(metrics["macro_f1"]),
            number(metrics["before"]["ece"]),
            number(metrics["after"]["ece"]),
            number(metrics["before"]["brier"]),
            number(metrics["after"]["nll"]),
        ):
            assert words in page.text
    for words in ("Accepted in comparison with carcond-0006 : not worse", "65.4 %", "12 others", "97.0 %", "1.23"):
        assert words in page.text.replace("carcond-0006:", "carcond-0006 :")


def test_each_task_has_a_described_diagram_with_a_mark_for_each_bin(card: dict[str, Any], page: _Page) -> None:
    assert page.count("svg", role="img") == 2
    for mark in ("before", "after"):
        bins = sum(len(metrics[mark]["bins"]) for metrics in card["holdout"].values())
        assert page.count("circle", **{"class": mark}) == bins
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    pointed = [v for _, attrs in page.tags for v in (attrs.get("aria-labelledby") or "").split()]
    assert pointed
    assert set(pointed) <= ids
    assert len(ids) == sum("id" in attrs for _, attrs in page.tags)


def test_marks_stay_inside_the_diagram(page: _Page) -> None:
    for tag, attrs in page.tags:
        if tag == "circle":
            assert 0 <= float(attrs["cx"] or "nan") <= 360
            assert 0 <= float(attrs["cy"] or "nan") <= 300


def test_each_table_has_a_caption_and_each_head_a_scope(page: _Page) -> None:
    assert page.count("table") == page.count("caption")
    assert all("scope" in attrs for tag, attrs in page.tags if tag == "th")
    assert page.count("h1") == 1


def test_confusion_cells_are_shaded_by_their_share_of_the_row() -> None:
    html = card_page(old_card())
    assert '<td class="right" style="--of-row: 1.0">2<small>100 %</small></td>' in html
    assert '<td class="wrong" style="--of-row: 1.0">1<small>100 %</small></td>' in html


def test_a_card_before_the_first_labels_says_what_is_missing() -> None:
    assert "it takes labels of at least two classes" in _Page(card_page({})).text


def test_no_malformed_part_stops_the_page() -> None:
    for card in broken_cards()[::11]:
        _Page(card_page(card))
