"""The words of the page "Photo", in English and Russian."""

from collections.abc import Mapping
from dataclasses import dataclass

from carcond.condition_form import Language


@dataclass(frozen=True)
class PhotoWords:
    """What the page says in one language."""

    title: str
    introduction: str
    upload: str
    camera: str
    take: str
    samples: str
    samples_are_drawn: str
    sample: str
    photo: str
    attention: str
    attention_is: str
    mobile: str
    judged_by: str


WORDS: Mapping[Language, PhotoWords] = {
    "en": PhotoWords(
        title="What condition is this car in?",
        introduction="Choose a photo, take one, or click a drawing. The backend judges it and keeps nothing of it.",
        upload="A photo of a car",
        camera="Use the camera",
        take="Take a photo",
        samples="Or one of these",
        samples_are_drawn="They are drawings: what is said of them tells nothing of real photos.",
        sample="Drawing",
        photo="The photo",
        attention="Where it was seen",
        attention_is="Yellow is what speaks most for the answer; what is left as it is speaks against it.",
        mobile="As mobile applications get it",
        judged_by="Judged by {version}.",
    ),
    "ru": PhotoWords(
        title="В каком состоянии машина?",
        introduction="Выберите фото, снимите его или нажмите на рисунок. Сервер оценит его и ничего не сохранит.",
        upload="Фото машины",
        camera="Снять камерой",
        take="Сделать фото",
        samples="Или один из рисунков",
        samples_are_drawn="Это рисунки: ответы о них ничего не говорят о настоящих фото.",
        sample="Рисунок",
        photo="Фото",
        attention="Где это видно",
        attention_is="Жёлтое сильнее всего говорит за ответ; неокрашенное говорит против.",
        mobile="Как это получают мобильные приложения",
        judged_by="Оценила версия {version}.",
    ),
}
