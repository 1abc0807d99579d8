"""The command line: smai fetch | train | color | run | report | notebooks | test.

Commands import what they need themselves, so that `smai --help` answers at once.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number

from . import __version__
from .core import paths
from .core.errors import ConfigError, SmaiError
from .studies import STUDIES


def to_whole(_, tokens) -> int:
    """Return the whole number that an option was given; cyclopts itself rounds 1.5."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"found {tokens[0].value!r}, expected a whole number") from None


Whole = Annotated[int, Parameter(converter=to_whole, validator=Number(gte=0, lt=2**32))]
Flag = Annotated[bool, Parameter(negative=())]
StudyName = Literal[tuple(STUDIES)]
Profile = Literal["quick", "full"]
INTERRUPTED = 128 + signal.SIGINT
NO_READER = 128 + 13  # SIGPIPE, which Windows lacks

app = App(
    name="smai",
    help="Multi-task Fashion-MNIST and CIFAR-10 colorization: train, report, try out.",
    version=__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
)
app.register_install_completion_command()
app.command("smai_lib.train_command:train", name="train", help="Train your own configuration.")


@app.command
def fetch() -> None:
    """Get the data; print their source and size, and checksums of Fashion-MNIST's files."""
    from .colorization.images import color_images
    from .multitask.data import describe

    describe()
    color_images()


@app.command
def color(picture: Path, /, *, out: Path | None = None, vividness: float = 0) -> None:
    """Colour a picture with the best recorded network.

    Args:
        picture: an image file, such as JPEG or PNG.
        out: file to write; default: NAME_colored.png in the current folder.
        vividness: 0 to 1; 0: colours as predicted, often greyish; 1: about four fifths as
            colourful as true images.
    """
    from .colorization.coloring import color as color_picture

    _, *files = color_picture(picture, out, vividness)
    print(*files, sep="\n")


@app.command
def run(
    names: Annotated[list[StudyName] | None, Parameter(negative=())] = None,
    /,
    *,
    profile: Profile = "quick",
    seed: Whole = 0,
    workers: Whole = 0,
    engine: Literal["processes", "serial", "ray"] = "processes",
    address: str | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    oversubscribe: Flag = False,
) -> None:
    """Train studies, or continue them.

    Args:
        names: studies; default: all.
        profile: quick: briefly, in minutes; full: the reported study, in hours.
        seed: seed of the first run.
        workers: number of processes; 0: one a core, at most four on a GPU.
        engine: where runs execute; ray: see "Beyond one machine" in README.md.
        address: Ray cluster, HOST:PORT or auto; default: start Ray here.
        cpus: cores of a run on Ray, which are also its threads; default: 1.
        gpus: GPUs of a run on Ray; with 0.25, four runs share one; default: 0.
        device: device of a run; auto: a CUDA GPU where there is one.
        oversubscribe: allow more workers than cores, which is slower.
    """
    from .core import ray_pool
    from .core.pool import cores
    from .core.tracking import requested_mode
    from .core.training import choose_device
    from .studies import run_studies

    requested_mode()
    resources = {"address": address, "cpus": cpus, "gpus": gpus}
    resources = {key: value for key, value in resources.items() if value is not None}
    if engine == "ray":
        ray_pool.connect(workers, **resources)
        signal.signal(signal.SIGTERM, _exit_on_sigterm)  # Ray has set its own handler
    elif resources:
        raise ConfigError(f"--{', --'.join(resources)}: only for --engine ray, found {engine!r}")
    elif workers > cores() and not oversubscribe:
        raise ConfigError(
            f"--workers: found {workers}, expected at most {cores()}, the number of cores; "
            "--oversubscribe allows more"
        )
    else:
        choose_device(device)
    where = {"engine": engine, "workers": workers, **resources}
    run_studies(names or list(STUDIES), profile, seed, device=device, **where)


@app.command
def report(
    *, profile: Profile | None = None, seed: Whole | None = None, check: Flag = False
) -> None:
    """Write the report as a page and a PDF.

    Args:
        profile: first train all studies and run all notebooks; the report is then written to
            runs/PROFILE. By default it is made from recorded results, in report/.
        seed: seed of the studies and notebooks, with --profile only; default: 0.
        check: write nothing; fail if the report in report/ is out of date.
    """
    if profile is None and seed is not None:
        raise ConfigError("--seed needs --profile: recorded results have their seeds")
    if profile and check:
        raise ConfigError("--check is about the recorded report; leave out --profile")
    if profile:
        file = _train_and_report(profile, seed or 0)
    else:
        from . import report as pages

        file = pages.check() if check else pages.write()
    if file:
        print(file)


def _train_and_report(profile: str, seed: int) -> Path:
    """Train all studies, run all notebooks, and write the report about what was trained."""
    from . import report as pages
    from .notebooks import run_with_profile
    from .studies import load_study, run_studies

    print("1 of 4: get the data", flush=True)
    fetch()
    print(f"2 of 4: train {len(STUDIES)} studies", flush=True)
    run_studies(list(STUDIES), profile, seed)
    print("3 of 4: run the notebooks", flush=True)
    books = run_with_profile(profile, seed)
    print("4 of 4: write the report", flush=True)
    file = pages.write(profile=profile, seed=seed, pages=[page.stem for page in books])
    results = [load_study(name, profile, seed).results for name in STUDIES]
    networks = sum(len(table) for table in results if "val_accuracy" in table)
    print(f"{networks} networks were trained; their accuracy stands beside the recorded one in")
    return file


@app.command
def notebooks(names: Annotated[list[str] | None, Parameter(negative=())] = None, /) -> None:
    """Run notebooks in place, as the repository stores them.

    Args:
        names: names without .ipynb; default: all.
    """
    from .notebooks import NOTEBOOKS, run_in_place

    run_in_place(names or NOTEBOOKS)


@app.command
def test(*, slow: Annotated[Flag, Parameter(name="--all")] = False) -> None:
    """Check the code, run the fast tests, and compare the notebooks with their stored outputs.

    Args:
        slow: run the slow tests, too.
    """
    from .core.pool import cores

    python = [sys.executable, "-m"]
    # a process a core with one thread each: threads of several processes wait for each other
    pytest = [*python, "pytest", "-n", str(min(cores(), 4)), "--dist", "loadfile"]
    marks = ["-m", ""] if slow else []  # by default pytest runs the fast tests
    nbval = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout", "300"]
    fetch()
    for command in [
        [*python, "ruff", "check", "."],
        [str(Path(sys.executable).with_name("lint-imports"))],
        [*pytest, "--durations=10", *marks, "tests"],
        [*pytest, *nbval, "notebooks"],
    ]:
        print("$", Path(command[0]).name, *command[1:], flush=True)
        one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=paths.ROOT, env=one_thread, check=False)
        if done.returncode:
            sys.exit(done.returncode)


def _exit_on_sigterm(*_) -> None:
    """Exit as an interrupt does, which ends all workers."""
    sys.exit(128 + signal.SIGTERM)


def _replace_closed_streams() -> None:
    """Open the null device in place of closed standard streams, as under `smai … >&-`.

    Their numbers would otherwise go to the next files opened, which then get what is printed.
    """
    for name, mode in {"stdin": "r", "stdout": "w", "stderr": "w"}.items():
        if getattr(sys, name) is None:
            null = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115  until the command ends
            setattr(sys, name, null)


def _describe(error: Exception) -> str:
    """Return an error in one line, with the notes that say where it happened."""
    notes = [note for note in getattr(error, "__notes__", []) if "\n" not in note]
    return "; ".join([*str(error).splitlines(), *notes])


def main(tokens: Sequence[str] | None = None) -> None:
    """Run a command; a foreseen error is one line on stderr and exit code 2."""
    _replace_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # names of files may be in any encoding
    signal.signal(signal.SIGTERM, _exit_on_sigterm)
    try:
        app(tokens, print_error=False, exit_on_error=False, result_action="return_value")
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("smai: interrupted; the same command continues", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # `smai … | head` has read enough
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  flushed at the exit
        sys.exit(NO_READER)
    except (SmaiError, CycloptsError, OSError) as error:
        print(f"smai: {_describe(error)}", file=sys.stderr)
        sys.exit(2)
