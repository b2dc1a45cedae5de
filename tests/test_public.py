"""The public names, what importing them costs, and the levels of the package."""

import ast
import graphlib
import statistics
import subprocess
import sys
from pathlib import Path

import cgan

PACKAGE = Path(cgan.__file__).parent

# Lowest first. A file imports from its own folder and from lower levels.
LEVELS = """
    console
    errors config config_io
    attributes
    storage runtime
    augment losses penalties models
    data
    updates
    sampling
    evaluation
    sharing
    training
    cli
    __main__
"""

CONFIG = {"errors", "config", "config_io"}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "cgan"


def imported(path: Path) -> set[str]:
    """Modules of ours that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cgan":
            whole = node.module.removeprefix("cgan").removeprefix(".")
            for alias in node.names:
                inner = f"{whole}.{alias.name}".removeprefix(".")
                is_module = (PACKAGE / inner.replace(".", "/")).with_suffix(".py").exists()
                is_package = (PACKAGE / inner.replace(".", "/")).is_dir()
                names.add(inner if is_module or is_package else whole or "cgan")
    return names


def folder(module: str) -> str:
    return module.partition(".")[0]


def test_levels() -> None:
    levels = {
        name: i for i, line in enumerate(LEVELS.strip().splitlines()) for name in line.split()
    }
    files = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    assert {folder(name) for name in files} == {"cgan", *levels}
    for name, path in files.items():
        if name == "cgan":
            continue  # its names are imported lazily
        for other in imported(path) - {"cgan"}:
            here, there = folder(name), folder(other)
            same_folder = here == there and (PACKAGE / here).is_dir()
            in_config = {here, there} <= CONFIG
            lower = levels[there] < levels[here]
            assert same_folder or lower or in_config, f"{name} imports {other}"


def test_no_import_cycles() -> None:
    files = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    graph = {name: imported(path) & files.keys() - {"cgan"} for name, path in files.items()}
    graph.pop("cgan")
    # A folder's __init__ imports its files; a file that imports the folder would be a cycle.
    list(graphlib.TopologicalSorter(graph).static_order())


def test_size_of_files_and_functions() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert max(lengths.values()) <= 500, max(lengths, key=lengths.__getitem__)
    assert statistics.median(lengths.values()) <= 200
    assert len(lengths) <= 110
    for path in lengths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                length -= len((ast.get_docstring(node, clean=False) or "").splitlines())
                assert length <= 60, f"{path.name}: {node.name} has {length} lines"


def test_public_names() -> None:
    assert cgan.__all__ == sorted(cgan.__all__)
    assert dir(cgan) == cgan.__all__
    for name in cgan.__all__:
        assert getattr(cgan, name) is not None
    assert not hasattr(cgan, "nonsense")
    assert (PACKAGE / "py.typed").exists()


def test_the_docs_name_every_public_name() -> None:
    text = (PACKAGE.parent / "docs" / "api" / "public.md").read_text()
    named = text.partition(":::")[0].split("`")[1::2]
    assert [name for name in cgan.__all__ if name not in named] == []


def test_every_public_thing_says_what_it_is() -> None:
    for name in cgan.__all__:
        assert (getattr(cgan, name).__doc__ or "").strip(), name


def imported_by(code: str) -> set[str]:
    script = f"import sys; {code}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return {module.split(".")[0] for module in done.stdout.splitlines()[-1].split()}


def test_help_does_not_wait_for_torch() -> None:
    loaded = imported_by("import cgan, cgan.cli")
    assert not loaded & {"torch", "pydantic", "numpy", "PIL", "yaml"}


def test_drawing_does_not_wait_for_what_it_does_not_need() -> None:
    loaded = imported_by(
        "import cgan.cli, cgan.sampling.sampler, cgan.storage.images, cgan.storage.run_files"
    )
    assert not loaded & {"torchvision", "sklearn", "wandb", "tensorboard", "scipy"}


def test_nothing_is_pickled() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert "import pickle" not in text
        # Weights of another project have no other format: only tensors are read.
        assert "torch.load(" not in text.replace("torch.load(path, weights_only=True)", "")
        assert "torch.save(" not in text
