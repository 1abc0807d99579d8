"""python -m smai_lib fetch | run | report | notebooks | bench"""

import argparse
from collections.abc import Iterable

from . import studies
from .colorization.images import color_images
from .core import paths, tracking
from .core.study import PROFILES
from .multitask import fashion_mnist


def at_least(least: int):
    """What argparse reads a whole number with: one line and exit code 2 for a smaller one."""
    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"found {value}, expected at least {least}")
        return value

    return number


def refuse_unknown(parser: argparse.ArgumentParser, names: Iterable[str], known: Iterable[str]) -> None:
    """End in one line and exit code 2 unless every name is known."""
    if unknown := set(names) - set(known):
        parser.error(f"unknown {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m smai_lib", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fetch", help="get the data; say which source served it, its checksum and size")
    run = commands.add_parser("run", help="train a study, or continue it")
    run.add_argument("studies", nargs="*", help=f"from {', '.join(studies.STUDIES)}; default: all")
    run.add_argument("--profile", choices=PROFILES[1:], default="quick")
    run.add_argument("--seed", type=at_least(0), default=0)
    run.add_argument("--workers", type=at_least(0), default=0, help="processes; 0 is one a core")
    report = commands.add_parser("report", help="run the notebooks and bind them into one page")
    report.add_argument("--profile", choices=PROFILES, default="quick")
    report.add_argument("--seed", type=at_least(0), default=0)
    books = commands.add_parser("notebooks", help="execute the notebooks in place, as the repository stores them")
    books.add_argument("names", nargs="*", help="default: all")
    bench = commands.add_parser("bench", help="images a second against the textbook loop")
    bench.add_argument("--rounds", type=at_least(1), default=5)
    arguments = parser.parse_args()
    if arguments.command == "run":
        refuse_unknown(parser, arguments.studies, studies.STUDIES)
    if arguments.command == "notebooks":
        refuse_unknown(parser, arguments.names, [file.stem for file in paths.NOTEBOOKS.glob("*.ipynb")])
    try:
        tracking.wanted_mode()
    except ValueError as error:
        parser.error(str(error))
    if arguments.command == "fetch":
        fashion_mnist.describe()
        color_images(classes="all")
    elif arguments.command == "run":
        for name in arguments.studies or studies.STUDIES:
            study = studies.STUDIES[name](arguments.profile, arguments.seed)
            study.run(workers=arguments.workers)
            print(f"{name}: finished, under {paths.runs_dir() / arguments.profile / name}")
        if arguments.profile == "full":
            from .headline import refresh_readme

            refresh_readme()
    elif arguments.command == "report":
        from .report import make_report

        make_report(arguments.profile, arguments.seed)
    elif arguments.command == "notebooks":
        from .report import NOTEBOOKS, refresh_notebooks

        refresh_notebooks(arguments.names or NOTEBOOKS)
    else:
        from .bench import bench as run_bench

        run_bench(arguments.rounds)


if __name__ == "__main__":
    main()
