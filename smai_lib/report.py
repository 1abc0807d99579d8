"""Run the notebooks: with papermill into pages beside the report, or in place for the repository."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import nbformat
import papermill
import pypandoc
from nbclient import NotebookClient
from PIL import Image

from . import document
from .core import config, engines, paths, runs, study

NOTEBOOKS = (
    "q1_multitask",
    "q1_lambda",
    "q1_best",
    "q1_feature_maps",
    "q2_colorization",
    "q2_cost_formulas",
)
MEANING = {
    "recorded": "results of the full study that the repository ships",
    "quick": "everything trained for real, but briefly: these numbers are not the reported ones",
    "full": "the reported study",
}
CELL_TIMEOUT_SECONDS = 24 * 3600  # a full study is one cell
BANNER = '<p class="banner">Profile <b>{}</b>: {}. <a href="report.html">The report</a></p>'


def make_report(profile: str, seed: int = 0) -> Path:
    """Execute every notebook under `profile`, as a page of its own, one a core, the last first; the path of the report is printed.

    Raises:
        ValueError: an unknown profile, or a seed that is no whole number.
        RunError: another process makes the same report, or two notebooks would train the same: `run` its studies first.
        papermill.PapermillExecutionError: a cell failed; the report is not written.
    """
    study.check_profile(profile)
    config.require_number("seed", seed, int)
    folder = paths.runs_dir() / profile
    with runs.exclusive(folder, runs.RunError):
        engines.work(
            _execute,
            NOTEBOOKS[::-1],
            (folder, {"profile": profile, "seed": seed}),
            total=len(NOTEBOOKS),
            unit="notebook",
        )
        print(
            page := document.write(folder / "report.html", here=profile, seed=seed, pages=NOTEBOOKS)
        )
    return page


def _execute(name: str, asked: tuple[Path, dict], report: engines.Report) -> None:
    papermill.execute_notebook(
        paths.NOTEBOOKS / f"{name}.ipynb",
        output := asked[0] / f"{name}.ipynb",
        asked[1],
        kernel_name="python3",
        execution_timeout=CELL_TIMEOUT_SECONDS,
        autosave_cell_every=30,
        progress_bar=False,
    )
    write_page(output, asked[1]["profile"])
    report(1)


def refresh_notebooks(names: Sequence[str] = NOTEBOOKS) -> None:
    """Execute notebooks in place with their cheap defaults, as the repository stores them.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed; that notebook is left as it was.
    """
    for name in names:
        file = paths.NOTEBOOKS / f"{name}.ipynb"
        notebook = nbformat.read(file, as_version=4)
        NotebookClient(
            notebook,
            timeout=CELL_TIMEOUT_SECONDS,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": str(paths.NOTEBOOKS)}},
        ).execute()
        notebook.metadata.pop("widgets", None)  # what they showed: a live kernel shows it anew
        for data in (
            output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])
        ):
            if "image/png" in data:
                data["image/png"] = _shrunk(data["image/png"])
        nbformat.write(notebook, file)
        print(f"{file.name}: {file.stat().st_size / 1000:.0f} kB")


def _shrunk(png: str) -> str:
    """A PNG in base64 with at most 112 colours, which a figure does not miss: a third of the size."""
    small = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        image.convert("RGB").quantize(112, dither=Image.Dither.NONE).save(
            small, "PNG", optimize=True
        )
    return base64.b64encode(small.getvalue()).decode()


def write_page(file: Path, profile: str) -> Path:
    """Write an executed notebook as a page beside it: code folded, formulas as MathML, no progress bars, no widgets."""
    notebook = nbformat.read(file, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [
                output
                for output in cell.outputs
                if output.get("name") != "stderr"
                and "application/vnd.jupyter.widget-view+json" not in output.get("data", {})
            ]
            for data in (output.get("data", {}) for output in cell.outputs):
                for kind in {"text/latex", "text/markdown"} & {*data}:  # outputs that pandoc drops
                    data.setdefault(
                        "text/html",
                        pypandoc.convert_text(
                            data[kind], "html", format="markdown", extra_args=["--mathml"]
                        ),
                    )
    (page := file.with_suffix(".html")).write_text(
        document.page(
            nbformat.writes(notebook),
            file.parent,
            reader="ipynb",
            options=[
                f"--lua-filter={document.REPORT / 'fold.lua'}",
                f"--metadata=pagetitle:{file.stem}, profile {profile}",
                f"--variable=include-before:{BANNER.format(profile, MEANING[profile])}",
            ],
        )
    )
    return page
