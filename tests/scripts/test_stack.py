import hashlib

import pytest

from carcond.settings import load_settings
from scripts.stack import with_demo_token


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@pytest.mark.parametrize("named", ["", f"shop:{'a' * 64}", f"demo:{'b' * 64}, shop:{'a' * 64},"])
def test_the_demo_is_named_once_beside_the_applications_of_the_environment(
    named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARCOND_API_TOKENS", with_demo_token(named, "token"))
    shop = {"shop": "a" * 64} if "shop" in named else {}
    assert load_settings().api_tokens == {"demo": digest("token")} | shop


def test_a_shell_that_has_read_the_settings_of_a_stack_can_start_it_again() -> None:
    once = with_demo_token("", "token")
    assert with_demo_token(once, "token") == once
