"""``speech-relay schema``: what is written, to where."""

import json
from pathlib import Path

from relay.contract.json_schema import type_schema
from relay.events.catalog import CATALOG
from tests.golden.write import HERE
from tests.support.cli import speech_relay


def test_a_folder_gets_every_document_and_a_sample_of_each_type(tmp_path: Path) -> None:
    done = speech_relay("schema", "--out", "a/b", cwd=tmp_path)
    files = {path.relative_to(tmp_path / "a/b").as_posix(): path for path in tmp_path.rglob("*.json")}
    assert done.stdout == f"{len(files)} files written to a/b\n"
    several = {f"{folder}/{name}.json" for folder in ("types", "examples") for name in CATALOG}
    assert files.keys() == {"events.json", "openapi.json", "asyncapi.json", *several}
    for name in CATALOG:
        assert json.loads(files[f"types/{name}.json"].read_text()) == type_schema(name)
        assert files[f"examples/{name}.json"].read_text() == (HERE / "events" / f"{name}.json").read_text()


def test_documents_may_be_about_some_types_only(tmp_path: Path) -> None:
    one = speech_relay("schema", "--event", "ping", cwd=tmp_path)
    assert json.loads(one.stdout) == type_schema("ping")
    some = speech_relay("schema", "--format", "openapi", "--event", "speech.*", "--event", "ping", cwd=tmp_path)
    assert json.loads(some.stdout)["webhooks"].keys() == {"speech.started", "speech.ended", "ping"}
    bodies = speech_relay("schema", "--examples", "--event", "speech.*", cwd=tmp_path)
    assert [body["type"] for body in json.loads(bodies.stdout)] == ["speech.started", "speech.ended"]


def test_without_an_option_the_types_are_listed(tmp_path: Path) -> None:
    done = speech_relay("schema", cwd=tmp_path)
    assert all(f"\n{name} " in done.stdout for name in CATALOG)


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    wrong_type = speech_relay("schema", "--event", "spech.started", cwd=tmp_path)
    wrong_place = speech_relay("schema", "--out", "file", cwd=tmp_path)
    both = speech_relay("schema", "--examples", "--format", "openapi", cwd=tmp_path)
    assert wrong_type.stderr == "no event type is called spech.started; did you mean speech.started?\n"
    assert wrong_place.stderr == "file cannot be written: File exists\n"
    assert both.stderr == "Error: give --format or --examples, not both\n"
    assert {wrong_type.returncode, wrong_place.returncode, both.returncode} == {2}
