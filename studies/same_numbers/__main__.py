"""The command line of the study; see the package."""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import tempfile
from pathlib import Path

import studies.same_numbers
from studies.same_numbers.cases import PARTS
from studies.same_numbers.compare import compare
from studies.same_numbers.record import record

ROOT = Path(__file__).resolve().parents[2]


def between(before: str, after: str, keep: Path | None, tolerance: float, names: list[str] | None) -> int:
    """Record two revisions of this repository in worktrees of their own, compare; the status of the comparison."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        records = (keep or folder / "records").resolve()
        for name, revision in (("before", before), ("after", after)):
            tree = folder / name
            git_worktree("add", "--detach", str(tree), revision)
            stack.callback(git_worktree, "remove", "--force", str(tree))
            print(f"{name}: {revision}", flush=True)
            # The configurations of the first: what is compared are programs.
            record(records / name, tree, records / "before" / "configs" if name == "after" else None, names)
        return compare(records / "before", records / "after", tolerance, names)


def git_worktree(*words: str) -> None:
    """Run `git worktree` in this repository."""
    ended = subprocess.run(["git", "-C", str(ROOT), "worktree", *words], capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise SystemExit(f"git worktree {' '.join(words)}: {ended.stderr.strip()}")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 1 when a comparison found a difference."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.same_numbers",
        description=studies.same_numbers.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="Record one revision.")
    recording.add_argument("out", type=Path)
    recording.add_argument("--package", type=Path, default=ROOT, help="Checkout to record; default: this one.")
    recording.add_argument("--configs", type=Path, help="Another record's configs, when they changed in between.")
    comparing = commands.add_parser("compare", help="Compare two records.")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    comparing.add_argument("--package", type=Path, help="Where AFTER's checkout lies now, if it was moved.")
    comparing.add_argument("--no-resume", action="store_true", help="Do not go on with BEFORE's stopped run.")
    both = commands.add_parser("between", help="Record two revisions of this repository and compare them.")
    both.add_argument("before")
    both.add_argument("after")
    both.add_argument("--keep", type=Path, help="Keep the two records in this directory.")
    for each in (comparing, both):
        each.add_argument("--tolerance", type=float, default=0.0, help="Largest relative difference; default 0.")
    for each in (recording, comparing, both):
        each.add_argument("--only", nargs="+", metavar="PART", help=", ".join(part.name for part in PARTS))
    given = parser.parse_args(arguments)
    if given.command == "record":
        record(given.out, given.package, given.configs, given.only)
        return 0
    if given.command == "compare":
        return compare(given.before, given.after, given.tolerance, given.only, given.package, not given.no_resume)
    return between(given.before, given.after, given.keep, given.tolerance, given.only)


if __name__ == "__main__":
    raise SystemExit(main())
