"""python -m smai_lib fetch | train | color | run | report | notebooks"""

import argparse
import signal
import sys
from collections.abc import Iterable

from . import own, studies
from .colorization.images import FORMATS, color_images
from .core import cluster, engines, paths, tracking
from .core.checksums import ChecksumError
from .core.runs import RunError
from .core.sources import DataError
from .core.study import PROFILES
from .core.training import NonFiniteLossError, choose_device
from .multitask import fashion_mnist

PROFILE_HELP = "quick: briefly, in minutes; full: the reported study, in hours (default: quick)"


def at_least(least: int):
    """What argparse reads a whole number with: one line and exit code 2 for a smaller one."""

    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"found {value}, expected at least {least}")
        return value

    return number


def refuse_unknown(
    parser: argparse.ArgumentParser, names: Iterable[str], known: Iterable[str]
) -> None:
    """End in one line and exit code 2 unless every name is known."""
    if unknown := set(names) - set(known):
        parser.error(f"unknown {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")


def options() -> argparse.ArgumentParser:
    """Every command with its options."""
    parser = argparse.ArgumentParser(prog="python -m smai_lib", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "fetch", help="get the data; say which source served it, its checksum and size"
    )
    train_task = commands.add_parser("train", help="train a configuration of your own")
    tasks = train_task.add_subparsers(dest="task", required=True)
    for task, base in own.BASES.items():
        train = tasks.add_parser(task, help=base.__doc__.splitlines()[0], description=base.__doc__)
        train.add_argument(
            "--seed", type=at_least(0), default=0, help="of weights, order and dropout (default: 0)"
        )
        train.add_argument(
            "--images",
            type=at_least(60),
            default=0,
            dest="n_images",
            metavar="N",
            help="so many training images, for a quick try (default: all)",
        )
        own.add_keys(train, task)
    color = commands.add_parser("color", help="colour a picture of your own")
    color.add_argument("picture", help=f"a file: {', '.join(FORMATS)}")
    color.add_argument(
        "--out",
        dest="file",
        metavar="FILE",
        help="what to write (default: NAME_colored.png, in this folder)",
    )
    run = commands.add_parser("run", help="train a study, or continue it")
    run.add_argument("studies", nargs="*", help=f"from {', '.join(studies.STUDIES)}; default: all")
    run.add_argument("--profile", choices=PROFILES[1:], default="quick", help=PROFILE_HELP)
    run.add_argument("--seed", type=at_least(0), default=0, help="of the first run (default: 0)")
    run.add_argument(
        "--workers", type=at_least(0), default=0, help="processes (default: one a core)"
    )
    run.add_argument(
        "--engine",
        choices=engines.ENGINES,
        default="processes",
        help='where the runs execute (default: processes; ray: see "Beyond one machine" in README.md)',
    )
    run.add_argument(
        "--address",
        default="",
        help="of a Ray cluster, HOST:PORT or auto (default: begin one here)",
    )
    run.add_argument(
        "--cpus", type=float, default=1, help="of a run on Ray, and its threads (default: 1)"
    )
    run.add_argument(
        "--gpus",
        type=float,
        default=0,
        help="of a run on Ray; 0.25: four runs share one (default: 0)",
    )
    run.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="of a run (default: auto, CUDA where a run has it)",
    )
    run.add_argument(
        "--oversubscribe",
        action="store_true",
        help="allow more workers than cores, which is slower",
    )
    report = commands.add_parser("report", help="write the report, as a page and as a PDF")
    report.add_argument(
        "--profile",
        choices=PROFILES[1:],
        help="first train every study, execute the notebooks, and add a chapter "
        "on what was trained here; the default only reads recorded results, and writes report/report.html",
    )
    report.add_argument(
        "--check",
        action="store_true",
        help="write nothing; say whether report/report.html is current",
    )
    report.add_argument(
        "--seed", type=at_least(0), default=0, help="the notebooks' parameter (default: 0)"
    )
    books = commands.add_parser(
        "notebooks", help="execute the notebooks in place, as the repository stores them"
    )
    books.add_argument("names", nargs="*", help="file names without .ipynb; default: all")
    return parser


def end(*_) -> None:
    """On SIGTERM, as an interrupt does: leave no worker behind."""
    sys.exit(128 + signal.SIGTERM)


def main() -> None:
    parser = options()
    arguments = parser.parse_args()
    if arguments.command == "run":
        refuse_unknown(parser, arguments.studies, studies.STUDIES)
        if (
            arguments.engine != "ray"
            and arguments.workers > engines.cores()
            and not arguments.oversubscribe
        ):
            parser.error(
                f"--workers: found {arguments.workers}, expected at most {engines.cores()}, the cores; "
                "--oversubscribe allows more"
            )
    if arguments.command == "notebooks":
        refuse_unknown(
            parser, arguments.names, [file.stem for file in paths.NOTEBOOKS.glob("*.ipynb")]
        )
    where = {
        name: getattr(arguments, name, None)
        for name in ("engine", "workers", "address", "cpus", "gpus")
    }
    try:
        tracking.wanted_mode()
        if where["engine"] == "ray":
            cluster.connect(*(where[name] for name in ("address", "workers", "cpus", "gpus")))
            signal.signal(signal.SIGTERM, end)  # Ray's own would abort
        elif arguments.command == "run":
            choose_device(arguments.device)
    except ValueError as error:
        parser.error(str(error))
    if arguments.command == "fetch":
        fashion_mnist.describe()
        color_images()
    elif arguments.command in ("train", "color", "run"):
        asked = {name: value for name, value in vars(arguments).items() if name != "command"}
        try:
            if arguments.command == "run":
                for name in arguments.studies or studies.STUDIES:
                    studies.STUDIES[name](arguments.profile, arguments.seed).run(
                        device=arguments.device, **where
                    )
                    print(f"{name}: finished, under {paths.runs_dir() / arguments.profile / name}")
            else:
                print(
                    *(
                        own.color(**asked)[1:]
                        if arguments.command == "color"
                        else own.summary(own.train(**asked))
                    ),
                    sep="\n",
                )
        except (
            DataError,
            NonFiniteLossError,
            RunError,
            OSError,
            ValueError,
        ) as error:  # a ConfigError is a ValueError
            parser.error(
                "\n".join([str(error), *getattr(error, "__notes__", [])])
            )  # of a run: way out, trace
    elif arguments.command == "report":
        from . import document, report

        try:
            if arguments.check:
                document.check()
            elif arguments.profile:
                for build in studies.STUDIES.values():
                    build(arguments.profile, arguments.seed).run()
                report.make_report(arguments.profile, arguments.seed)
            else:
                print(document.write())
        except (document.ReportError, ChecksumError, DataError, RunError) as error:
            parser.error(str(error))
    else:
        from .report import NOTEBOOKS, refresh_notebooks

        refresh_notebooks(arguments.names or NOTEBOOKS)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    main()
