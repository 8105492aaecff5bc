"""The pictures of the documents are of the pages as they are."""

import json
import re

import pytest

from bench import pictures

pytest.importorskip("jinja2", reason="the report extra is not installed")


def test_pictures_are_of_the_pages_as_they_are() -> None:
    kept = json.loads(pictures.DIGESTS.read_text(encoding="utf-8"))

    assert pictures.digests() == kept, "old pictures: python -m bench pictures makes them anew"


def test_every_picture_that_a_document_shows_is_there() -> None:
    shown = set()
    for document in (pictures.ROOT / "README.md", *(pictures.ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(((?:docs/)?pictures/[\w.-]+)\)", document.read_text(encoding="utf-8")):
            shown.add((document.parent / link).resolve())

    assert {path.name for path in pictures.FOLDER.glob("*.png")} == {path.name for path in shown}
    assert all(path.is_file() for path in shown)
