"""Templates: every setting is there, commented out, and reads back as its default."""

import re
import tomllib
from dataclasses import fields

import pytest

from mpilayer.cli.config import KINDS, template
from mpilayer.config import from_values, read_sections


def sections_of(text, tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text(text)
    return read_sections(path)


def with_all_settings(text):
    return re.sub(r"^#(?=\w+ = )", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_set_and_all_settings_are_the_defaults(kind, tmp_path):
    text = template(kind)
    assert sections_of(text, tmp_path) == {name: {} for name in KINDS[kind]}
    sections = sections_of(with_all_settings(text), tmp_path)
    for name, cls in KINDS[kind].items():
        assert from_values(cls, sections[name]) == cls()
        if name != "compare":
            assert list(sections[name]) == [item.name for item in fields(cls)]
    for line in text.splitlines():
        assert re.fullmatch(r"(# .{0,86}|#\w+ = .*|\[\w+\]|)", line)
        assert len(line) <= 88


def test_ranges_are_said():
    text = template("pretrain")
    assert "(list of whole numbers, each at least 1)" in text.replace("\n# ", " ")
    assert "(list of numbers, each at least 0 and less than 1)" in text
    assert tomllib.loads(with_all_settings(text))["pretrain"]["momentum"] == [0.5, 0.9]
