import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tyro
from places import ROOT

from analog_samson import __version__
from analog_samson.commands import run_command
from analog_samson.console import COMMANDS, main


def run(*arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["analog-samson", *arguments])
    main()


def test_every_script_has_a_command_and_every_command_a_line_of_help(capsys, monkeypatch):
    files = (ROOT / "experiments").glob("*.py")
    scripts = {path.stem for path in files if "run_command(main" in path.read_text("utf-8")}
    assert set(COMMANDS.values()) == scripts
    run("--help", monkeypatch=monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    for name in COMMANDS:
        assert any(line.split()[:1] == [name] and len(line.split()) > 3 for line in lines), name


def test_version(capsys, monkeypatch):
    run("--version", monkeypatch=monkeypatch)
    assert capsys.readouterr().out == f"analog-samson {__version__}\n"


def test_an_unknown_command_is_refused_with_the_nearest_one(capsys, monkeypatch):
    with pytest.raises(SystemExit, match="2"):
        run("swep", monkeypatch=monkeypatch)
    assert "did you mean 'sweep'?" in capsys.readouterr().err


@pytest.mark.slow
def test_a_command_is_the_script_of_its_name(capsys, monkeypatch):
    run("device", "pcm_like", monkeypatch=monkeypatch)
    command = capsys.readouterr().out
    script = [sys.executable, "experiments/describe_device.py", "pcm_like"]
    assert command == subprocess.run(script, cwd=ROOT, capture_output=True, text=True).stdout
    with pytest.raises(SystemExit, match="There is no checkpoint 'nope.safetensors'"):
        run("sweep", "nope.safetensors", monkeypatch=monkeypatch)


@pytest.mark.slow
def test_completion_knows_commands_and_options(monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        run("--tyro-print-completion", "bash", monkeypatch=monkeypatch)
    assert not ended.value.code
    script = capsys.readouterr().out
    assert "sweep" in script and "--n-images-per-chip" in script


# errors


def explained() -> None:
    """Raise where the package does."""
    from analog_samson.devices import load_device

    load_device("pcm_lik")


def unforeseen() -> None:
    """Raise where a library does."""
    int("four")
    [].index(1)


def test_an_error_of_the_package_is_one_line():
    with pytest.raises(SystemExit, match=r"^FileNotFoundError: Unknown device 'pcm_lik'"):
        run_command(explained, [])


def test_traceback_shows_where_an_error_of_the_package_comes_from(capsys):
    with pytest.raises(SystemExit, match="1"):
        run_command(explained, ["--traceback"])
    text = capsys.readouterr().err
    assert "Traceback" in text and "load_device" in text and "report it" not in text


def test_any_other_error_shows_its_traceback_and_asks_for_a_report(capsys):
    with pytest.raises(SystemExit, match="1"):
        run_command(unforeseen, [])
    text = capsys.readouterr().err
    assert "ValueError: invalid literal" in text and "in unforeseen" in text and "report it" in text


def raise_explained(path):
    from analog_samson.checkpoint import load_checkpoint

    raise_it = load_checkpoint
    if path == "library":
        int("four")
    raise_it(path)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_errors_of_workers_are_told_apart_as_well(tmp_path, capsys, jobs):
    from analog_samson.running import run_jobs

    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"x" * 20)
    with pytest.raises(SystemExit, match=r"^ValueError: .*wrong.safetensors"):
        run_command(lambda: list(run_jobs(raise_explained, [str(wrong)] * 2, jobs=jobs)), [])
    with pytest.raises(SystemExit, match="1"):
        run_command(lambda: list(run_jobs(raise_explained, ["library"] * 2, jobs=jobs)), [])
    assert "report it" in capsys.readouterr().err


# packages


def run_in(folder: Path, command: list[object], variables: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Wheel made from the source distribution, as an index would hold both."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.mark.slow
def test_a_wheel_does_in_an_empty_folder_what_the_five_minute_page_says(wheel, tmp_path):
    """In an environment that sees the libraries and not this checkout."""
    page = (ROOT / "docs" / "START.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(console|python)\n(.*?)^```", page, re.M | re.S)
    lines = [line for kind, text in blocks if kind == "console" for line in text.splitlines()]
    (code,) = [text for kind, text in blocks if kind == "python"]
    assert wheel.name in page
    environment, work = tmp_path / "environment", tmp_path / "work"
    work.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(where, capture_output=True, text=True).stdout.strip())
    (packages / "libraries.pth").write_text(str(Path(tyro.__file__).parents[1]))
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--quiet", "--disable-pip-version-check", wheel], check=True)

    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    variables |= {"OMP_NUM_THREADS": "1"}
    commands = [shlex.split(line) for line in [*lines, "analog-samson --help"]]
    for program, *words in commands:
        assert program == "analog-samson"
        names = [sorted(work.glob(word)) if "*" in word else [word] for word in words]
        jobs = ["--jobs", "1"] if words[0] in ("train", "sweep") else []
        executed = [environment / "bin" / program, *(name for some in names for name in some)]
        run_in(work, [*executed, *jobs], variables)
    run_in(work, [python, "-c", code], variables)
    assert len((work / "results/first/trials.csv").read_text().splitlines()) == 1 + 150
    for written in ("results/first/report.html", "slides/accuracy.png"):
        assert (work / written).is_file()
    assert (work / "results/first-in-python/report.html").is_file()
    assert "analog-samson sweep" in (work / "results/first/manifest.json").read_text()
    text = "import analog_samson.devices.files as f; print(f.top_folder('device_configs'))"
    shown = subprocess.run([python, "-c", text], cwd=work, capture_output=True, text=True)
    assert str(packages) in shown.stdout


@pytest.mark.slow
def test_a_checkout_takes_its_own_devices_whatever_is_installed(tmp_path):
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("analog_samson", "experiments", "setup.cfg"):
        (checkout / name).symlink_to(ROOT / name)
    own = checkout / "device_configs"
    own.mkdir()
    (own / "mine.toml").write_text((ROOT / "device_configs/pcm_like.toml").read_text())
    text = "from analog_samson.devices import device_names; print(device_names())"
    shown = subprocess.run([sys.executable, "-c", text], cwd=checkout, capture_output=True)
    assert shown.stdout.decode().strip() == "['mine']"
