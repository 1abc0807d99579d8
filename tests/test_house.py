"""The law of the house: which folder may import which, read off the import statements."""

import ast
import json
from pathlib import Path

import pytest

from smai_lib.core import paths

LIBRARY = paths.ROOT / "smai_lib"
TOP = "the top"  # the modules that stand in no folder
# what each folder may import beside itself
LAW = {
    "core": set(),
    "multitask": {"core"},
    "colorization": {"core"},
    "features": {"core", "multitask", "colorization"},
    "costs": {"core", "multitask", "colorization"},
    TOP: {"core", "multitask", "colorization", "features", "costs"},
}
# the top's modules, too, stand on floors: a module may import those of lower floors
FLOORS = {"studies": 0, "notebook": 0, "own": 1, "document": 1, "report": 2, "__main__": 3}
MOST_LINES, MOST_LINES_OF_A_FUNCTION, MOST_MODULES_AT_THE_TOP, MOST_NAMES_OF_A_NOTEBOOK = (
    250,
    60,
    10,
    8,
)
LINES_WHEN_IT_WAS_FLAT = 6162


def modules(library: Path = LIBRARY) -> dict[str, ast.Module]:
    """Dotted name below the library -> its syntax tree."""
    return {
        ".".join(file.relative_to(library).with_suffix("").parts): ast.parse(file.read_text())
        for file in sorted(library.rglob("*.py"))
    }


def folder(module: str) -> str:
    return module.split(".")[0] if "." in module else TOP


def imported(module: str, tree: ast.Module, known: set[str]) -> set[str]:
    """Modules of the library that `module` imports, anywhere in it, also for type checkers alone."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            path = (
                [*package, *(node.module or "").split(".")]
                if node.level
                else (node.module or "").split(".")
            )
            if not node.level and path[0] != "smai_lib":
                continue
            path = [part for part in (path if node.level else path[1:]) if part]
            names = {".".join([*path, alias.name]) for alias in node.names}
            found |= {name if name in known else ".".join(path) for name in names}
        elif isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix("smai_lib.")
                for alias in node.names
                if alias.name.startswith("smai_lib")
            }
    return found & known


def breaches(library: Path = LIBRARY) -> list[str]:
    """What breaks the law: imports of folders that may not be, floors skipped upward, circles."""
    trees = modules(library)
    arrows = {name: imported(name, tree, set(trees)) for name, tree in trees.items()}
    found = []
    for name, targets in arrows.items():
        for target in targets:
            here, there = folder(name), folder(target)
            if there != here and there not in LAW[here]:
                found.append(f"{name} imports {target}")
            if here == there == TOP and not FLOORS[target] < FLOORS[name]:
                found.append(f"{name} imports {target}, which is no lower")
    rest = dict(arrows)
    while leaves := [name for name, targets in rest.items() if not targets & rest.keys() - {name}]:
        for name in leaves:
            del rest[name]
    return found + ([f"a circle among {', '.join(sorted(rest))}"] if rest else [])


def test_arrows_point_one_way():
    assert breaches() == []


@pytest.mark.parametrize(
    "file, line, breach",
    [
        (
            "core/runs.py",
            "from ..multitask import objective",
            "core.runs imports multitask.objective",
        ),
        (
            "multitask/studies.py",
            "from smai_lib.colorization.palette import decode",
            "multitask.studies imports colorization.palette",
        ),
        ("core/layers.py", "if TYPE_CHECKING:\n    from .runs import RunSpec\n", "a circle"),
        (
            "studies.py",
            "def f():\n    from . import report\n",
            "studies imports report, which is no lower",
        ),
    ],
)
def test_a_planted_import_is_found(tmp_path, file, line, breach):
    for source in LIBRARY.rglob("*.py"):
        copy = tmp_path / source.relative_to(LIBRARY)
        copy.parent.mkdir(exist_ok=True, parents=True)
        copy.write_text(source.read_text())
    with open(tmp_path / file, "a") as planted:
        planted.write("\n" + line + "\n")
    if breach == "a circle":  # runs stands on layers already
        assert any(found.startswith(breach) for found in breaches(tmp_path))
    else:
        assert breach in breaches(tmp_path)


def test_the_library_is_small():
    sizes = {
        name: len((LIBRARY / name.replace(".", "/")).with_suffix(".py").read_text().splitlines())
        for name in modules()
    }
    assert {name: size for name, size in sizes.items() if size > MOST_LINES} == {}
    assert sum(sizes.values()) <= LINES_WHEN_IT_WAS_FLAT
    assert sum("." not in name and name != "__init__" for name in sizes) <= MOST_MODULES_AT_THE_TOP
    long = {
        f"{name}.{node.name}"
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and node.end_lineno - node.lineno >= MOST_LINES_OF_A_FUNCTION
    }
    assert long == set()


@pytest.mark.parametrize(
    "file", sorted(paths.NOTEBOOKS.glob("*.ipynb")), ids=lambda file: file.stem
)
def test_a_notebook_needs_few_names_of_the_library(file):
    cells = json.loads(file.read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    code = "\n".join(line for line in code.splitlines() if not line.lstrip().startswith("%"))
    names = [
        alias.asname or alias.name
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "smai_lib"
        for alias in node.names
    ]
    assert 0 < len(names) <= MOST_NAMES_OF_A_NOTEBOOK, names


def test_no_function_has_the_name_of_a_module_it_is_not_the_point_of():
    """`maps.maps` is what the module is about; `figures.palette` beside a module `palette` would be another thing."""
    trees = modules()
    names = {part for name in trees for part in name.split(".")}
    clashes = {
        f"{name}.{node.name}"
        for name, tree in trees.items()
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        and node.name in names - {name.split(".")[-1]}
    }
    assert clashes == set()
