from carcond.reports.text_page import PlainPage, add_cells, plain_table


def test_names_are_shown_as_they_are_whatever_markup_they_hold() -> None:
    table = plain_table("Photos [bold]", "name", "labels", justify="right")
    add_cells(table, "[red]car[/red] :car: http://a.b", "3")
    page = PlainPage(100)
    page.print(table)
    assert "Photos [bold]" in page.text
    assert "[red]car[/red] :car: http://a.b" in page.text
    assert "\x1b" not in page.text


def test_a_page_has_no_spaces_at_the_ends_of_lines() -> None:
    page = PlainPage(40)
    page.print("a   \nb  ")
    assert page.text == "a\nb"
