"""The rules of the house: who imports whom, what stays light, what the wheel holds."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ferbench

PACKAGE = Path(ferbench.__file__).parent
MODULES = sorted(p for p in PACKAGE.rglob("*.py"))

BASE = {"_commit", "_version", "errors", "toml"}
MAY_IMPORT = {
    "_commit": set(),
    "_version": set(),
    "errors": set(),
    "toml": {"errors"},
    "registry": BASE,
    "recipe": BASE,
    "spec": BASE | {"recipe"},
    "knobs": BASE | {"recipe", "spec"},
    "inputs": BASE | {"recipe", "spec", "knobs"},
    "environment": BASE,
    "data": BASE | {"registry"},
    "models": BASE | {"registry"},
    "training": BASE | {"registry", "spec", "environment"},
    "evaluation": BASE | {"registry"},
    "records": BASE | {"recipe", "spec", "inputs", "evaluation"},
    "probe": BASE | {"environment", "data", "models", "training"},
    "runner": BASE | {"environment", "data", "models", "training", "evaluation", "records", "probe"},
    "estimate": BASE | {"recipe", "environment", "data", "training", "evaluation", "probe", "runner", "again"},
    "trial": BASE | {"environment", "data", "models", "training", "evaluation", "records", "runner"},
    "again": BASE | {"recipe", "environment", "data", "models", "training", "evaluation", "records", "runner"},
    "worker": BASE
    | {"spec", "environment", "data", "records", "training"}
    | {"probe", "runner", "again", "estimate", "trial"},
    "forkserver": BASE | {"worker"},
    "workers": BASE | {"worker", "forkserver"},
    "listener": BASE,
    "ensemble": BASE | {"spec", "environment", "evaluation", "records", "report"},
    "posthoc": BASE | {"spec", "data", "evaluation", "records", "training"},
    "plan": BASE | {"spec", "inputs", "environment", "data", "models", "training", "records", "worker"},
    "jobs": BASE | {"spec", "environment", "data", "records", "plan", "posthoc", "workers", "listener"},
    "study": BASE
    | {"recipe", "spec", "inputs", "knobs", "environment", "data", "models", "training", "records"}
    | {"plan", "jobs", "worker", "workers", "listener"},
    "variants": BASE | {"recipe", "spec", "inputs"},
    "bench": BASE
    | {
        "recipe",
        "inputs",
        "variants",
        "environment",
        "models",
        "training",
        "probe",
        "records",
        "runner",
        "plan",
        "worker",
        "workers",
        "jobs",
        "listener",
    },
    "report": BASE
    | {"registry", "recipe", "spec", "inputs", "knobs", "variants", "environment", "data", "models", "training"}
    | {"evaluation", "records"},
    "progress": BASE,
    "cli": BASE
    | {"inputs", "data", "models", "training", "evaluation", "records"}
    | {"plan", "jobs", "study", "bench", "report", "ensemble", "progress"},
    "__init__": BASE | {"plan", "jobs", "listener", "report", "progress"},
    "__main__": {"cli"},
}
"""What each room may import when it runs; its own modules always, other rooms' types under TYPE_CHECKING too."""


def room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def runtime_imports(tree: ast.AST) -> list[str]:
    """Modules imported anywhere but under `if TYPE_CHECKING`."""
    names: list[str] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names += [f"{module}.{a.name}" for a in node.names] if module == "ferbench" else [module]
        else:
            names += runtime_imports(node)
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    here = room(path)
    allowed = MAY_IMPORT[here] | {here}
    for name in runtime_imports(ast.parse(path.read_text())):
        top, _, rest = name.partition(".")
        if top == "ferbench":
            target = rest.partition(".")[0]
            if target in ("__version__", "InputError"):
                continue
            assert target in allowed, f"{path.name} imports {name}"


@pytest.mark.parametrize("library", ["optuna", "seaborn", "matplotlib"])
def test_some_libraries_have_one_room(library):
    users = {
        "study" if room(p) == "study" else str(p.relative_to(PACKAGE).with_suffix(""))
        for p in MODULES
        if any(n.partition(".")[0] == library for n in runtime_imports(ast.parse(p.read_text())))
    }
    allowed = {"optuna": {"study"}}.get(
        library,
        {
            "report/canvas",
            "report/diagrams",
            "report/figures",
            "report/looks",
            "report/placement",
            "report/study_figures",
        },
    )
    assert users <= allowed


def test_only_the_command_line_prints():
    for path in MODULES:
        if room(path) in ("cli", "progress") or path.name == "terminal.py":
            continue
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"], path


@pytest.mark.parametrize(
    "module",
    [
        "ferbench",
        "ferbench.cli",
        "ferbench.toml",
        "ferbench.registry",
        "ferbench.recipe",
        "ferbench.spec",
        "ferbench.environment",
        "ferbench.plan",
        "ferbench.posthoc",
        "ferbench.jobs",
        "ferbench.forkserver",
        "ferbench.workers",
        "ferbench.listener",
        "ferbench.data",
        "ferbench.data.checks",
        "ferbench.data.formats",
        "ferbench.data.protocol",
        "ferbench.data.synthetic",
        "ferbench.models",
        "ferbench.training.formulas",
        "ferbench.training.imbalance",
        "ferbench.training.strategies",
        "ferbench.evaluation.metrics",
        "ferbench.evaluation.predictions",
        "ferbench.ensemble",
        "ferbench.evaluation.resampling",
        "ferbench.evaluation.statistics",
        "ferbench.evaluation.calibration",
        "ferbench.records.store",
        "ferbench.records.bench",
        "ferbench.report",
        "ferbench.report.leaderboard",
        "ferbench.report.comparison",
        "ferbench.report.claims",
        "ferbench.report.markdown",
        "ferbench.report.rescore",
        "ferbench.report.speed",
        "ferbench.report.studies",
        "ferbench.study.space",
        "ferbench.bench",
        "ferbench.bench.inference",
        "ferbench.progress",
    ],
)
def test_light_modules_leave_torch_alone(module):
    code = f"import sys, {module}; heavy = {{'torch', 'timm', 'optuna'}} & set(sys.modules); sys.exit(str(heavy or ''))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.strip() == "", result.stderr


def test_models_import_nothing_of_ours_but_errors():
    for path in (PACKAGE / "models").glob("*.py"):
        ours = [n for n in runtime_imports(ast.parse(path.read_text())) if n.startswith("ferbench")]
        assert all(n.startswith(("ferbench.errors", "ferbench.registry", "ferbench.models")) for n in ours), path


def test_shipped_inputs_are_found():
    from ferbench.inputs import recipe_names
    from ferbench.toml import shipped

    assert shipped("baselines", "defaults.toml").is_file()
    assert {"plain_cnn", "vgg16", "resnet18", "efficientnet_b2", "efficientnet_v2_s", "timm"} <= set(recipe_names())
