from typing import Any

from backend.dashboard.charts import balance_chart, curve_chart, curve_rows, forecast_rows
from carcond.analysis.forecast import forecast
from carcond.analysis.holdout_curve import holdout_curve
from tests.carcond.histories import draw_history

HISTORY = draw_history(200, distance=3.0)


def drawn(chart: Any) -> list[Any]:
    """The data of each layer."""
    spec = chart.to_dict()
    data = [layer.get("data", spec.get("data")) for layer in spec["layer"]]
    return [spec["datasets"][each["name"]] if "name" in each else each["values"] for each in data]


def test_the_forecast_begins_where_the_curve_ends() -> None:
    curve, ahead = holdout_curve(HISTORY), forecast(HISTORY).as_json()
    for metric in ("accuracy", "macro_f1"):
        so_far, dashed = curve_rows(curve, metric), forecast_rows(ahead, metric)
        assert (dashed[0]["labels"], dashed[0]["value"]) == (so_far[-1]["labels"], so_far[-1]["value"])
        assert dashed[1]["labels"] == dashed[0]["labels"] + 100
        assert dashed[1]["low"] <= dashed[1]["value"] <= dashed[1]["high"] <= 1


def test_the_chart_holds_every_point_of_curve_and_forecast() -> None:
    so_far = curve_rows(holdout_curve(HISTORY), "accuracy")
    ahead = forecast_rows(forecast(HISTORY).as_json(), "accuracy")
    assert drawn(curve_chart(so_far, ahead, "accuracy")) == [so_far, so_far, ahead, ahead]


def test_without_a_forecast_the_curve_stands_alone() -> None:
    missing = forecast(draw_history(20)).as_json()
    assert forecast_rows(missing, "accuracy") == []
    so_far = curve_rows(holdout_curve(HISTORY), "accuracy")
    assert len(drawn(curve_chart(so_far, [], "accuracy"))) == 2


def test_bars_stand_in_the_order_of_the_classes() -> None:
    rows = [{"class": "very dirty", "labels": 3}, {"class": "clean", "labels": 0}]
    chart = balance_chart(rows)
    assert drawn(chart)[0] == rows
    assert chart.to_dict()["layer"][0]["encoding"]["y"]["sort"] is None


def test_bars_leave_room_between_them_whatever_height_there_is() -> None:
    rows = [{"class": "intact", "labels": 54}, {"class": "damaged", "labels": 56}]
    bars = balance_chart(rows).to_dict()["layer"][0]["mark"]
    assert bars["height"]["band"] < 0.8
