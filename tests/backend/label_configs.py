"""Label configs that people have: other languages, order, names, and tags that are none of ours."""

from collections.abc import Mapping
from typing import Any

from label_studio_sdk.label_interface.interface import LabelInterface

ENGLISH = """<View>
  <Image name="image" value="$image"/>
  <Choices name="cleanliness" toName="image" choice="single" showInline="true">
    <Choice value="clean"/><Choice value="slightly dirty"/><Choice value="very dirty"/>
  </Choices>
  <Choices name="damage" toName="image" choice="single" showInline="true">
    <Choice value="intact"/><Choice value="damaged"/>
  </Choices>
</View>"""

RUSSIAN = """<View>
  <Image name="image" value="$image"/>
  <Choices name="cleanliness" toName="image" choice="single">
    <Choice value="Чистый"/><Choice value="Слегка грязный"/><Choice value="Очень грязный"/>
  </Choices>
  <Choices name="damage" toName="image" choice="single"><Choice value="Целый"/><Choice value="Битый"/></Choices>
</View>"""

REORDERED = """<View>
  <Choices name="damage" toName="image" choice="single"><Choice value="damaged"/><Choice value="intact"/></Choices>
  <Image name="image" value="$image"/>
  <Choices name="cleanliness" toName="image" choice="single">
    <Choice value="very dirty"/><Choice value="clean"/><Choice value="slightly dirty"/>
  </Choices>
</View>"""

RENAMED = """<View>
  <Image name="foto" value="$picture"/>
  <TextArea name="remark" toName="foto"/>
  <Choices name="weather" toName="foto"><Choice value="sun"/><Choice value="rain"/></Choices>
  <Choices name="wash_state" toName="foto" choice="single">
    <Choice value="Dirty"/><Choice value="Dusty"/><Choice value="CLEAN"/><Choice value="cannot tell"/>
  </Choices>
  <Choices name="dents" toName="foto" choice="single"><Choice value="Undamaged"/><Choice value="Damaged"/></Choices>
</View>"""

DAMAGE_ONLY = """<View>
  <Image name="image" value="$image"/>
  <Choices name="damage" toName="image" choice="single"><Choice value="intact"/><Choice value="damaged"/></Choices>
</View>"""

BOXES = """<View>
  <Image name="image" value="$image"/>
  <Choices name="cleanliness" toName="image" choice="single">
    <Choice value="clean"/><Choice value="slightly dirty"/><Choice value="very dirty"/>
  </Choices>
  <Choices name="damage" toName="image" choice="single"><Choice value="intact"/><Choice value="damaged"/></Choices>
  <RectangleLabels name="parts" toName="image">
    <Label value="wheel"/><Label value="Damage" alias="hit"/>
  </RectangleLabels>
  <TextArea name="remark" toName="image"/>
  <TextArea name="carcond" toName="image" editable="false" maxSubmissions="1"/>
</View>"""

ALL = {"english": ENGLISH, "russian": RUSSIAN, "reordered": REORDERED, "renamed": RENAMED}


def prediction_errors(label_config: str, prediction: Mapping[str, Any]) -> list[str]:
    """What Label Studio's own validation has to say of a prediction."""
    interface = LabelInterface(label_config)
    errors: list[str] = interface.validate_prediction(prediction, return_errors=True)  # type: ignore[no-untyped-call]
    return errors
