"""The public names, what they cost, and which way the floors point."""

import ast
import subprocess
import sys
from pathlib import Path

import cgan

PACKAGE = Path(cgan.__file__).parent

# From the ground up: a file imports only from lines above its own.
FLOORS = """
    errors
    files places config
    asking png images losses penalties ema latents device distributed
    onnx_sampler shards
    models.conditioning
    models.mlp models.dcgan
    models
    data.folder
    data.sources
    data.loader
    data
    updates checkpoint verify
    sampling
    export
    metrics metrics.classifier metrics.distances
    metrics.features
    metrics.gather
    metrics.control
    metrics.report metrics.reference
    metrics.measure
    recorded
    learner loggers runs interrupts watch
    memory progress loop
    trainer evaluation
    tables shell
    page bulk
    cli_generate cli_measure
    cgan cli
    __main__
"""


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "cgan"


def imported(path: Path) -> set[str]:
    """Modules of ours that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("cgan"):
            whole = node.module.removeprefix("cgan").removeprefix(".")
            for alias in node.names:
                inner = f"{whole}.{alias.name}".removeprefix(".")
                is_module = (PACKAGE / inner.replace(".", "/")).with_suffix(".py").exists()
                is_package = (PACKAGE / inner.replace(".", "/")).is_dir()
                names.add(inner if is_module or is_package else whole or "cgan")
    return names


def test_floors() -> None:
    level = {name: i for i, line in enumerate(FLOORS.strip().splitlines()) for name in line.split()}
    files = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    assert set(files) == set(level)
    for name, path in files.items():
        for other in imported(path):
            assert level[other] < level[name], f"{name} imports {other}"


def test_public_names() -> None:
    assert cgan.__all__ == sorted(cgan.__all__)
    assert dir(cgan) == cgan.__all__
    for name in cgan.__all__:
        assert getattr(cgan, name) is not None
    assert not hasattr(cgan, "nonsense")
    assert (PACKAGE / "py.typed").exists()


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
    loaded = imported_by("import cgan.cli, cgan.sampling, cgan.png, cgan.runs")
    assert not loaded & {"torchvision", "sklearn", "wandb", "tensorboard", "scipy"}


def test_nothing_is_pickled() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert "import pickle" not in text
        assert "torch.load(" not in text
        assert "torch.save(" not in text
