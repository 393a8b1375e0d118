from backend.dashboard.notes import escaped


def test_markup_and_addresses_of_others_stay_words() -> None:
    assert escaped("[a](http://b)") == r"\[a\](http\://b)"
    assert escaped("anna@example.com").replace("\N{WORD JOINER}", "") == "anna@example.com"
    assert "\N{WORD JOINER}@" in escaped("anna@example.com")
