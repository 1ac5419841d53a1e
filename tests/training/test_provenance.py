"""What a run was made with: written whatever is installed and whatever the names hold."""

import json
from pathlib import Path

import pytest

from infimmr_jax.training import provenance


def test_without_git_the_revision_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert provenance.environment()["git_revision"] is None


def test_a_program_inside_another_repository_has_no_revision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def git(root: Path, *arguments: str) -> str | None:
        asked.append(arguments[0])
        return None if arguments[0] == "ls-files" else "abc123"

    monkeypatch.setattr(provenance, "_git", git)
    assert provenance.environment()["git_revision"] is None
    assert asked == ["ls-files"]


def test_half_a_surrogate_pair_is_written_as_its_escape(tmp_path: Path) -> None:
    provenance._write(tmp_path / "a.json", {"id": "\ud800 é"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"id": "\ud800 é"}
