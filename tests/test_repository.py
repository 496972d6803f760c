"""What stands in several files around the code is the same in all of them."""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_version_is_that_of_the_citation_and_the_changelog_has_room_for_the_next():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", citation, flags=re.MULTILINE).group(1) == PROJECT["project"]["version"]
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_python_that_is_promised_is_tried_with_current_packages_and_the_oldest_with_the_lowest():
    prefix = "Programming Language :: Python :: 3."
    promised = [name[len(prefix) - 2 :] for name in PROJECT["project"]["classifiers"] if name.startswith(prefix)]
    tried = {row["deps"][0]: row["python"] for row in PROJECT["tool"]["hatch"]["envs"]["hatch-test"]["matrix"]}
    assert promised == tried["stable"]
    assert PROJECT["project"]["requires-python"] == f">={promised[0]}"
    assert tried["lowest"] == promised[:1]
    assert tried["pre"] == promised[-1:]


def test_type_checkers_are_told_that_h2e_has_types():
    assert (files("h2e") / "py.typed").is_file()


def test_every_action_is_pinned_to_a_commit_and_says_its_version():
    for workflow in (ROOT / ".github" / "workflows").glob("*.yaml"):
        uses = re.findall(r"uses: (.*)$", workflow.read_text(encoding="utf-8"), flags=re.MULTILINE)
        loose = [use for use in uses if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use)]
        assert loose == [], workflow.name
