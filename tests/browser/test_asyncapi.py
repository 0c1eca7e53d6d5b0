"""The AsyncAPI document is valid by AsyncAPI's own schema, which `make test` installs from npm."""

import json

import jsonschema_rs
import pytest

from tests.browser.conftest import FOLDER

pytestmark = pytest.mark.pages

REPOSITORY = FOLDER.parent.parent


def test_the_document_is_what_asyncapi_asks_for() -> None:
    schema = json.loads((FOLDER / "node_modules/@asyncapi/specs/schemas/3.0.0.json").read_text(encoding="utf-8"))
    document = json.loads((REPOSITORY / "relay/pages/asyncapi.json").read_text(encoding="utf-8"))
    assert document["asyncapi"] == "3.0.0"
    validator = jsonschema_rs.validator_for(schema)
    assert [str(error) for error in validator.iter_errors(document)] == []
    del document["channels"]["listen"]["messages"]["Hello"]["$ref"]
    document["channels"]["listen"]["adress"] = "/"
    assert not validator.is_valid(document), "the schema takes anything"
