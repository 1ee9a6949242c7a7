"""The command ``analog-samson``: the scripts of ``experiments``, each by a short name."""

import ast
import importlib.util
import sys
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import cast

import tyro

from analog_samson import __version__
from analog_samson.commands import run_command
from analog_samson.devices.sentences import did_you_mean
from analog_samson.files import top_folder

COMMANDS = {
    "quickstart": "quickstart",
    "train": "train_methods",
    "sweep": "drift_sweep",
    "status": "study_status",
    "noise": "noise_sweep",
    "why": "why_low",
    "landscape": "landscape",
    "requirements": "requirements",
    "figures": "paper_figures",
    "tables": "paper_tables",
    "page": "paper_page",
    "device": "describe_device",
    "import": "import_checkpoint",
    "import-device": "import_device",
    "methods": "methods_study",
    "map": "methods_map",
    "rerun": "rerun",
    "verdicts": "verdicts",
    "thermal": "thermal_drift",
}
"""Name of a command to its script in ``experiments``."""

PROGRAM = "analog-samson"


def main() -> None:
    """Run the command line; only the script that is named is imported.

    Raises:
        SystemExit: As ``commands.run_command`` does; with code 2 for an unknown command.
    """
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        script = _script(COMMANDS[name])
        run_command(
            script.main,
            arguments,
            old_options=getattr(script, "OLD_OPTIONS", {}),
            program=f"{PROGRAM} {name}",
        )
    elif name == "--version":
        sys.stdout.write(f"{PROGRAM} {__version__}\n")
    elif name in ("-h", "--help"):
        sys.stdout.write(_help())
    elif name.startswith(("--tyro-print-completion", "--tyro-write-completion")):
        functions = {command: _script(file).main for command, file in COMMANDS.items()}
        tyro.extras.subcommand_cli_from_dict(functions, prog=PROGRAM, args=[name, *arguments])
    else:
        sys.stderr.write(
            f"Unknown command {name!r}{did_you_mean(name, list(COMMANDS))}\n"
            f"{PROGRAM} --help lists the commands.\n"
        )
        sys.exit(2)


def _path(file: str) -> Path:
    return Path(str(top_folder("experiments") / f"{file}.py"))


def _script(file: str) -> ModuleType:
    """The script, imported from its file: the checkout's own, or the installed one."""
    name = f"analog_samson.experiments.{file}"
    spec = importlib.util.spec_from_file_location(name, _path(file))
    module = importlib.util.module_from_spec(cast(ModuleSpec, spec))
    sys.modules[name] = module
    cast(Loader, module.__loader__).exec_module(module)
    return module


def _help() -> str:
    """The commands with the first sentence of each script, which is read and not imported."""
    width = max(map(len, COMMANDS))
    lines = [f"usage: {PROGRAM} COMMAND [options]", "", "commands:"]
    for name, file in COMMANDS.items():
        text = ast.get_docstring(ast.parse(_path(file).read_text(encoding="utf-8"))) or ""
        lines.append(f"  {name:<{width}}  {text.splitlines()[0]}")
    return "\n".join(
        [
            *lines,
            "",
            f"{PROGRAM} COMMAND --help lists the options of a command.",
            "--traceback after a command shows where an error comes from.",
            f"{PROGRAM} --version prints the version;",
            f"{PROGRAM} --tyro-print-completion bash (zsh, tcsh) prints a completion script.",
            "",
        ]
    )
