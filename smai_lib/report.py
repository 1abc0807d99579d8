"""Run the notebooks: with papermill into one self-contained HTML page, or in place for the repository."""

import base64
import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
import papermill
import pypandoc
from nbclient import NotebookClient
from PIL import Image

from .core import config, paths, runs, study

NOTEBOOKS = ("q1_multitask", "q1_lambda", "q1_best", "q1_feature_maps", "q2_colorization", "q2_cost_formulas")
MEANING = {
    "recorded": "results of the full study that the repository ships",
    "quick": "everything trained for real, but briefly: these numbers are not the reported ones",
    "full": "the reported study",
}
CELL_TIMEOUT_SECONDS = 24 * 3600  # a full study is one cell
STYLE = """<style>
body { max-width: 62em; margin: 2em auto; padding: 0 1em; font-family: system-ui, sans-serif; }
pre { background: #f6f6f6; padding: .6em; overflow-x: auto; font-size: .85em; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: .85em; }
td, th { padding: .2em .6em; border-bottom: 1px solid #ddd; text-align: right; }
img { max-width: 100%; } .banner { background: #fff3cd; padding: .6em 1em; }
</style>
"""
BANNER = '<p class="banner">Profile <b>{}</b>: {}.</p>'


def make_report(profile: str, seed: int = 0) -> Path:
    """Execute every notebook under `profile` and return the path of the page, which is printed.

    Raises:
        ValueError: an unknown profile, or a seed that is no whole number.
        RunError: another process is making the same report.
        papermill.PapermillExecutionError: a cell failed; the page is not written.
    """
    study.check_profile(profile)
    config.require_number("seed", seed, int)
    folder = paths.runs_dir() / profile
    executed = []
    with runs.exclusive(folder, runs.RunError):
        for name in NOTEBOOKS:
            output = folder / f"{name}.ipynb"
            papermill.execute_notebook(
                paths.NOTEBOOKS / f"{name}.ipynb", output, parameters={"profile": profile, "seed": seed},
                kernel_name="python3", execution_timeout=CELL_TIMEOUT_SECONDS, autosave_cell_every=30)
            executed.append(clean(output))
        page = bind(executed, folder / "report.html", profile)
    print(page)
    return page


def refresh_notebooks(names: Sequence[str] = NOTEBOOKS) -> None:
    """Execute notebooks in place with their cheap defaults, as the repository stores them.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed; that notebook is left as it was.
    """
    for name in names:
        file = paths.NOTEBOOKS / f"{name}.ipynb"
        notebook = nbformat.read(file, as_version=4)
        NotebookClient(notebook, timeout=CELL_TIMEOUT_SECONDS, kernel_name="python3", record_timing=False,
                       store_widget_state=False, resources={"metadata": {"path": str(paths.NOTEBOOKS)}}).execute()
        for data in (output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])):
            if "image/png" in data:
                data["image/png"] = _shrunk(data["image/png"])
        nbformat.write(notebook, file)
        print(f"{file.name}: {file.stat().st_size / 1000:.0f} kB")


def _shrunk(png: str) -> str:
    """A PNG in base64 with at most 112 colours, which a figure does not miss: a third of the size."""
    small = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        image.convert("RGB").quantize(112, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def clean(file: Path) -> Path:
    """Copy an executed notebook as a page can show it: formulas as MathML, no progress bars, no widgets."""
    notebook = nbformat.read(file, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"
                            and "application/vnd.jupyter.widget-view+json" not in output.get("data", {})]
            for data in (output.get("data", {}) for output in cell.outputs):
                if "text/latex" in data and "text/html" not in data:  # pandoc drops LaTeX outputs
                    data["text/html"] = pypandoc.convert_text(
                        data["text/latex"], "html", format="markdown", extra_args=["--mathml"])
    target = file.with_name(file.stem + ".clean.ipynb")
    nbformat.write(notebook, target)
    return target


def bind(notebooks: list[Path], page: Path, profile: str) -> Path:
    """One HTML file from executed notebooks: pictures embedded, math as MathML, no network needed."""
    try:
        subprocess.run([
            pypandoc.get_pandoc_path(), "--from=ipynb", "--to=html5", "--standalone", "--file-scope", "--mathml",
            "--embed-resources", "--toc", "--toc-depth=2", f"--metadata=pagetitle:SMAI A4, profile {profile}",
            f"--variable=header-includes:{STYLE}", f"--output={page}", *map(str, notebooks),
            f"--variable=include-before:{BANNER.format(profile, MEANING[profile])}"], check=True, stderr=sys.stderr)
    finally:
        for file in notebooks:
            file.unlink()
    return page
