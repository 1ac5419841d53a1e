"""Which room imports which, read from the code: the picture of docs/architecture.md, without circles of any kind."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "infimmr_jax"

# A room of the core imports only rooms to its right.
CORE = ("training", "objectives", "rollout", "environments", "rewards", "model", "preprocess", "data")
# These may be imported by all, and import only each other, to their right.
COMMON = ("parallel", "config", "files", "names", "errors")
# These import the core, and are imported by the front door alone.
ANNEXES = ("commands", "evaluation", "plan", "bench", "report")
FRONT = ("cli", "cli_machine", "endings")


def imports() -> dict[str, set[str]]:
    """Every module of the package with the modules of the package that it imports, lazily or for types alone too."""
    paths = {}
    for path in PACKAGE.rglob("*.py"):
        paths[".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = path
    edges = {}
    for module, path in paths.items():
        names = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module} has a relative import"
                names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
        edges[module] = {name for name in names if name in paths and name != module}
    return edges


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def may_import(importer: str, imported: str) -> bool:
    if importer == imported or importer in FRONT or imported == "infimmr_jax":
        return True
    if imported in COMMON:
        return importer not in COMMON or COMMON.index(imported) > COMMON.index(importer)
    if importer in ANNEXES:
        return imported in CORE
    return importer in CORE and imported in CORE and CORE.index(imported) > CORE.index(importer)


EDGES = imports()


def test_every_room_has_its_place():
    assert {room(module) for module in EDGES} <= {*CORE, *COMMON, *ANNEXES, *FRONT, "infimmr_jax"}


def test_rooms_import_only_what_the_picture_shows():
    wrong = [
        f"{module} -> {other}"
        for module, others in sorted(EDGES.items())
        for other in sorted(others)
        if not may_import(room(module), room(other))
    ]
    assert not wrong, "a room imports what lies to its left:\n" + "\n".join(wrong)


def test_no_module_imports_itself_through_others():
    def reached(start: str) -> set[str]:
        seen, todo = set(), [start]
        while todo:
            for other in EDGES[todo.pop()] - seen:
                seen.add(other)
                todo.append(other)
        return seen

    circles = [module for module in EDGES if module in reached(module)]
    assert not circles


def test_a_file_name_is_used_once():
    names = Counter(path.name for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
    assert [name for name, count in names.items() if count > 1] == []


def test_files_are_short():
    lines = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {name: count for name, count in lines.items() if count > 450} == {}


def test_types_are_said():
    """`Any` is for what no type can say; shapes and types are checked at run time by `conftest.py`."""
    count = sum(len(re.findall(r"\bAny\b", path.read_text("utf-8"))) for path in PACKAGE.rglob("*.py"))
    assert count < 150, f"{count} times Any"


@pytest.mark.parametrize(
    ("importer", "imported"),
    [("data", "rewards"), ("model", "training"), ("rewards", "commands"), ("config", "data"), ("plan", "bench")],
)
def test_the_rule_refuses(importer, imported):
    assert not may_import(importer, imported)
    assert may_import(importer, "names")
