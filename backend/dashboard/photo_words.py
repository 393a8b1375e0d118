"""The words of the page "Photo", in English and Russian."""

from collections.abc import Mapping
from dataclasses import dataclass

from backend.dashboard.condition_client import Refusal
from carcond.reports.mobile_form import Language


@dataclass(frozen=True)
class PhotoWords:
    """Texts of the page in one language."""

    title: str
    introduction: str
    upload: str
    at_work: str
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
    refusals: Mapping[Refusal, str]


WORDS: Mapping[Language, PhotoWords] = {
    "en": PhotoWords(
        title="What condition is this car in?",
        introduction="Choose a photo, take one, or click a drawing. The backend judges it and keeps nothing of it.",
        upload="A photo of a car",
        at_work="The photo is judged …",
        camera="Use the camera",
        take="Take a photo",
        samples="Or one of these",
        samples_are_drawn="They are drawings: answers about them say nothing about real photos.",
        sample="Drawing",
        photo="The photo",
        attention="Where it was seen",
        attention_is="Yellow regions support the answer; uncoloured ones count against it.",
        mobile="As mobile applications get it",
        judged_by="Judged by {version}.",
        refusals={
            Refusal.NO_PHOTO: "This file cannot be read as a photo. Choose a JPEG, PNG, WebP, BMP or GIF.",
            Refusal.TOO_LARGE: "This file is too large. Choose one of at most {megabytes} MB.",
            Refusal.TOO_MANY_PIXELS: "This photo has too many pixels. Choose one of at most {megapixels} megapixels.",
            Refusal.TOO_MANY_PHOTOS: "Too many photos were sent within a minute. Wait a minute and try again.",
            Refusal.NOT_READY: "There is no answer right now: nothing has been learnt yet, or too many people ask at "
            "once. Try again in a minute.",
            Refusal.AWAY: "The service that judges photos cannot be reached. Try again in a minute; if that does not "
            "help, tell whoever runs this page.",
            Refusal.NOT_LET_IN: "This page may not ask the service that judges photos. Tell whoever runs it.",
            Refusal.OTHER: "The photo could not be judged, and it is not your fault. Tell whoever runs this page.",
        },
    ),
    "ru": PhotoWords(
        title="В каком состоянии машина?",
        introduction="Выберите фото, снимите его или нажмите на рисунок. Сервер оценит его и ничего не сохранит.",
        upload="Фото машины",
        at_work="Фото оценивается …",
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
        refusals={
            Refusal.NO_PHOTO: "Этот файл не удаётся прочитать как фото. Выберите JPEG, PNG, WebP, BMP или GIF.",
            Refusal.TOO_LARGE: "Файл слишком большой. Выберите файл не больше {megabytes} МБ.",
            Refusal.TOO_MANY_PIXELS: "В фото слишком много пикселей. Выберите фото не больше {megapixels} Мпикс.",
            Refusal.TOO_MANY_PHOTOS: "За минуту прислано слишком много фото. Подождите минуту и попробуйте ещё раз.",
            Refusal.NOT_READY: "Ответа сейчас нет: модель ещё ничему не научилась, или спрашивает слишком много людей "
            "сразу. Попробуйте через минуту.",
            Refusal.AWAY: "Сервис, который оценивает фото, недоступен. Попробуйте через минуту; если не поможет, "
            "сообщите тому, кто отвечает за эту страницу.",
            Refusal.NOT_LET_IN: "Этой странице нельзя обращаться к сервису оценки. Сообщите тому, кто за неё отвечает.",
            Refusal.OTHER: "Фото не удалось оценить, и это не ваша вина. Сообщите тому, кто отвечает за эту страницу.",
        },
    ),
}
