"""The two tasks, their classes, and the words people use for them.

This is the one place that names cleanliness and damage. Everything else (heads, label configs,
reports) walks over `TASKS`. A *task* here is what a head learns; an item to be labelled in Label
Studio is a *photo* in this package.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ConditionClass:
    """One class of a task.

    Attributes:
        key: name used in files and code, for example ``slightly_dirty``.
        en: English name shown to people.
        ru: Russian name shown to people.
        words: further words that existing projects use for this class.
    """

    key: str
    en: str
    ru: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """One classification task: a head of the network.

    Attributes:
        key: name used in files and code, for example ``damage``.
        en: English name shown to people.
        ru: Russian name shown to people.
        classes: in the order of the head's logits, from good to bad.
        on_one_side: whether it may be seen from one side of the car only, so that one photo which shows it is enough.
    """

    key: str
    en: str
    ru: str
    classes: tuple[ConditionClass, ...]
    on_one_side: bool = False

    @property
    def class_keys(self) -> tuple[str, ...]:
        """Keys of the classes in the order of the head's logits."""
        return tuple(c.key for c in self.classes)

    def condition(self, key: str) -> ConditionClass:
        """The class of a key.

        Raises:
            KeyError: it has none of that key.
        """
        return {c.key: c for c in self.classes}[key]


CLEANLINESS = Task(
    "cleanliness",
    "Cleanliness",
    "Чистота",
    (
        ConditionClass("clean", "clean", "чистый", ("чистая", "чистое", "чисто")),
        ConditionClass(
            "slightly_dirty",
            "slightly dirty",
            "слегка грязный",
            ("пыльный", "пыльная", "dusty", "немного грязный", "слегка грязная", "слабо грязный"),
        ),
        ConditionClass(
            "very_dirty",
            "very dirty",
            "очень грязный",
            ("грязный", "грязная", "dirty", "сильно грязный", "очень грязная"),
        ),
    ),
)

DAMAGE = Task(
    "damage",
    "Damage",
    "Целостность",
    (
        ConditionClass(
            "intact",
            "intact",
            "целый",
            ("целая", "небитый", "не битый", "неповрежденный", "без повреждений", "undamaged", "not damaged", "whole"),
        ),
        ConditionClass(
            "damaged",
            "damaged",
            "битый",
            ("битая", "поврежденный", "поврежденная", "повреждение", "с повреждениями", "damage"),
        ),
    ),
    on_one_side=True,
)

DAMAGED = DAMAGE.class_keys[1]
"""Key of the class whose regions can be shown as a box."""

TASKS: tuple[Task, ...] = (CLEANLINESS, DAMAGE)
TASK_BY_KEY: dict[str, Task] = {task.key: task for task in TASKS}


def name_in(language: str, named: Task | ConditionClass) -> str:
    """Display name of a task or a class: in Russian for ``ru``, in English for any other language."""
    return named.ru if language == "ru" else named.en


def normalise_word(word: str) -> str:
    """Fold case, ё and separators, so that "Слегка_Грязный" and "слегка грязный" are one word."""
    return " ".join(word.casefold().replace("ё", "е").replace("_", " ").replace("-", " ").split())


def _word_table() -> dict[str, tuple[Task, ConditionClass]]:
    table: dict[str, tuple[Task, ConditionClass]] = {}
    for task in TASKS:
        for condition in task.classes:
            for word in (condition.key, condition.en, condition.ru, *condition.words):
                table[normalise_word(word)] = (task, condition)
    return table


_CLASS_BY_WORD = _word_table()


def find_class(word: str) -> tuple[Task, ConditionClass] | None:
    """The task and class that a label word means, or None for a word not in the table."""
    return _CLASS_BY_WORD.get(normalise_word(word))
