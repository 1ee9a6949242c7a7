"""Names of importable objects, and the consent that a file needs before it is followed."""

import json
import sys

import pytest

from analog_samson.importing import TRUST_VARIABLE, check_trust, import_callable, import_named


def test_a_name_gives_the_object() -> None:
    assert import_named("json:dumps", "model") is json.dumps
    assert import_callable("json.decoder:JSONDecoder", "model") is json.JSONDecoder


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such_package:build", "model 'no_such_package:build' cannot be imported"),
        ("json:dump_s", "Did you mean 'dumps'"),
        ("math:pi", "is a float; name a class or a function"),
        ("os:system", "is defined in 'posix', not in 'os'"),
        ("json:", "json has no ''"),
    ],
)
def test_what_cannot_be_called_is_one_sentence(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        import_callable(name, "model")


def test_a_file_imports_nothing_without_consent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TRUST_VARIABLE, raising=False)
    monkeypatch.delitem(sys.modules, "antigravity", raising=False)
    with pytest.raises(
        ValueError, match=r"'net' requires the import of 'antigravity:fly'.*--trust"
    ):
        check_trust(["mlp", "antigravity:fly"], source="'net'", trust=("antigravity_too",))
    assert "antigravity" not in sys.modules
    check_trust(["my_package.networks:wide"], source="'net'", trust=("my_package",))
    monkeypatch.setenv(TRUST_VARIABLE, "other,antigravity")
    check_trust(["antigravity:fly"], source="'net'")
