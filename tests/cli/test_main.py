"""The command line as a whole: help, exit codes, what is imported when."""

import re
import subprocess
from collections.abc import Callable

import pytest

from mrisps import __version__
from mrisps.cli import main as main_module
from mrisps.cli.common import UsageError, guarded, parse_size, printable
from mrisps.errors import FileError, SettingsError

from .helpers import Cli

COMMANDS = [
    ("recon",),
    ("batch",),
    ("verify",),
    ("view",),
    ("denoise",),
    ("superres",),
    ("compare",),
    ("evaluate",),
    ("info",),
    ("mask",),
    ("demo",),
    ("recipes",),
    ("recipes", "show"),
    ("recipes", "copy"),
    ("convert",),
    ("to-dicom",),
    ("serve",),
    ("send",),
    ("manifest", "make"),
    ("manifest", "verify"),
    ("manifest", "fetch"),
    ("convert-paper-slices",),
    ("convert-weights",),
    ("train",),
    ("weights",),
    ("atoms",),
    ("tune",),
]
Process = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help(cli: Cli, command: tuple[str, ...], option: str) -> None:
    assert cli(*command, option) == 0
    assert cli.stdout.startswith(f"Usage: mrisps {' '.join(command)}")
    assert "Examples:\n    mrisps " in cli.stdout


def test_help_lists_every_command(cli: Cli) -> None:
    assert cli("--help") == 0
    listed = re.findall(r"^  ([a-z-]+)  ", cli.stdout.split("Commands:")[1], re.MULTILINE)
    assert set(listed) == {command[0] for command in COMMANDS}
    assert "..." not in cli.stdout.split("Commands:")[1]  # no summary is cut


def test_no_command_is_help(cli: Cli) -> None:
    assert cli() == 2
    assert "Usage: mrisps" in cli.stdout + cli.stderr


def test_version(cli: Cli) -> None:
    assert cli("--version") == 0
    assert cli.stdout == f"mrisps {__version__}\n"


def test_help_imports_nothing_slow(process: Process) -> None:
    slow = "{'torch', 'numpy', 'h5py', 'matplotlib', 'sigpy', 'jinja2', 'skimage', 'rich'}"
    program = f"import sys; from mrisps.cli.main import main; main(['--help']); print({slow} & set(sys.modules))"
    done = process(program=("-c", program))
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("arguments", [("reconn",), ("recon", "--no-such-option"), ("recon",), ("mask", "--seed", "x")])
def test_usage_errors_of_the_parser(cli: Cli, arguments: tuple[str, ...]) -> None:
    assert cli(*arguments) == 2
    assert "Error: " in cli.stderr
    assert "Traceback" not in cli.stderr


def test_main_returns_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main_module.main(["--version"]) == 0
    assert main_module.main(["info", "/no/such/file"]) == 2
    assert capsys.readouterr().err == "error: /no/such/file: does not exist\n"


def test_debug_shows_where(cli: Cli) -> None:
    assert cli("--debug", "info", "/no/such/file") == 2
    assert "Traceback" in cli.stderr
    assert cli.stderr.endswith("error: /no/such/file: does not exist\n")
    assert cli("info", "/no/such/file") == 2
    assert "Traceback" not in cli.stderr


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("so not"), 2, "error: so not"),
        (SettingsError("lam", "expected a number"), 2, "error: lam: expected a number"),
        (FileError("a\x1b[31m.h5", "is\nbroken", "kspace"), 1, "error: a\\x1b[31m.h5: kspace: is broken"),
        (ValueError("y: expected more"), 1, "error: y: expected more"),
        (OSError(28, "No space left on device"), 1, "error: [Errno 28] No space left on device"),
        (MemoryError(), 1, "error: not enough memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_exceptions_become_one_line(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import typer

    @guarded
    def command() -> None:
        raise error

    with pytest.raises(typer.Exit) as ended:
        command()
    assert ended.value.exit_code == code
    assert capsys.readouterr().err == f"{line}\n"


def test_bugs_are_not_hidden() -> None:
    @guarded
    def command() -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        command()


def test_printable() -> None:
    assert printable("größer\x1b]0;title\x07\n\u202e") == "größer\\x1b]0;title\\x07\\n\\u202e"


@pytest.mark.parametrize("text", ["640", "640x", "640x0", "-1x5", "640x368x2", "٣x4", "axb"])
def test_parse_size_rejects(text: str) -> None:
    with pytest.raises(UsageError, match="--shape: expected HEIGHTxWIDTH"):
        parse_size(text, "--shape")


def test_parse_size() -> None:
    assert parse_size("640x368", "--shape") == (640, 368)


def test_shell_completion(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("_MRISPS_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "mrisps rec")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert main_module.main([]) == 0
    assert capsys.readouterr().out.split() == ["recon", "recipes"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("mrisps recon --recipe knee_pdfs_acc1", "knee_pdfs_acc16"),
        ("mrisps denoise --weights denoise_sigma5_c", "denoise_sigma5_cpr"),
    ],
)
def test_tab_completion_knows_recipes_and_weights(
    words: str, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_MRISPS_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", "3")
    main_module.main([])
    assert capsys.readouterr().out.split() == [expected]
