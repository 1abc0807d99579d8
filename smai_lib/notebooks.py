"""The notebooks: helpers that they call, and running them in place or under papermill.

In place they run with their cheap defaults, as the repository stores them. Under papermill they
run with a profile, and become HTML pages beside that profile's report.
"""

import ast
import base64
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from IPython import get_ipython
from IPython.display import HTML

from .core import paths, plots, pool
from .core.config import whole_number
from .core.errors import ConfigError, ReportError
from .core.files import exclusive, write
from .core.study import check_profile

NOTEBOOKS = (
    "q1_multitask",
    "q1_lambda",
    "q1_best",
    "q1_feature_maps",
    "q2_colorization",
    "q2_cost_formulas",
)
MEANING = {
    "recorded": "results of the full studies, as the repository ships them",
    "quick": "everything was trained here, but briefly: these numbers are not the reported ones",
    "full": "the reported studies",
}
CELL_SECONDS = 24 * 3600  # a full study is one cell
QUIET_KERNEL = ["--IPKernelApp.log_level=40"]  # no warning about TCP on this machine
LIVE = "application/vnd.jupyter.widget-view+json"  # an output that needs a running kernel
BANNER = '<p class="banner">Profile <b>{}</b>: {}. <a href="report.html">The report</a></p>'


def check_parameters(cells: Sequence[str], *allowed: str) -> None:
    """Check the parameters of the notebook that calls this in its second cell.

    papermill only warns about an unknown parameter, and runs the notebook with its defaults.

    Args:
        cells: the executed cells, IPython's `In`.
        allowed: names of the notebook's parameters.

    Raises:
        ConfigError: a parameter is unknown, the profile is unknown, or the seed is not a whole
            number from 0 on; or Python ignores `assert`, which the exercises use.
    """
    if sys.flags.optimize:
        raise ConfigError(
            "PYTHONOPTIMIZE: found a value, expected none: Python would skip every assert. "
            "Unset the variable, and restart the kernel"
        )
    for name in _injected_names(cells):
        if name not in allowed:
            known = ", ".join(allowed)
            raise ConfigError(f"unknown parameter {name!r}; this notebook has {known}")
    variables = get_ipython().user_ns
    check_profile(variables["profile"])
    whole_number("seed", variables["seed"])


def _injected_names(cells: Sequence[str]) -> list[str]:
    """Return the names that papermill's cell of parameters assigns.

    papermill starts a new kernel and inserts its cell after the notebook's own parameters, so it is
    the second one executed. A comment and assignments are all that it contains.
    """
    source = cells[2] if len(cells) > 2 else ""
    if not source.startswith("# Parameters\n"):
        return []
    try:
        statements = ast.parse(source).body
    except SyntaxError:  # a reader's own cell, with a magic
        return []
    if not all(isinstance(statement, ast.Assign) for statement in statements):
        return []
    return [ast.unparse(statement.targets[0]) for statement in statements]


def show(table: pd.DataFrame, **formats: str) -> HTML:
    """Return a table as HTML, without its index, floats with four decimals.

    Args:
        table: the table; text in it is escaped.
        formats: other formats by column, such as `share="{:.1%}"`.
    """
    floats = dict.fromkeys(table.select_dtypes("float").columns, "{:.4f}")
    style = table.style.hide(axis="index").format(floats | formats, escape="html", na_rep="–")
    style = style.format_index(escape="html", axis="columns")
    # without ids and classes the HTML is a third of the size, and the same in every run
    return HTML(style.to_html(exclude_styles=True))


def run_in_place(names: Sequence[str] = NOTEBOOKS) -> None:
    """Run notebooks with their defaults, and store outputs and figures in the repository.

    Raises:
        ConfigError: a name is unknown.
        ReportError: the folder cannot be written, or a cell failed; that notebook stays as it was.
    """
    for name in names:
        if name not in NOTEBOOKS:
            raise ConfigError(f"notebook: found {name!r}, expected one of {', '.join(NOTEBOOKS)}")
    if not os.access(paths.NOTEBOOKS, os.W_OK):
        raise ReportError(f"cannot write to {paths.NOTEBOOKS}; use a folder you may write to")
    for name in names:
        file = paths.NOTEBOOKS / f"{name}.ipynb"
        print(f"{file.name}: running", flush=True)
        content = _run(file)
        write(file, content)
        print(f"{file.name}: {len(content) / 1e6:.1f} MB")


def _run(file: Path) -> str:
    """Return the notebook in `file` as text, run in its own folder, with small outputs."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    notebook = nbformat.read(file, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=QUIET_KERNEL,
        resources={"metadata": {"path": str(file.parent)}},
    )
    try:
        client.execute(env=os.environ | {plots.SAVE_VARIABLE: "1", "TQDM_DELAY": "1e9"})
    except (CellExecutionError, DeadKernelError) as error:
        failed = paths.runs_dir() / f"failed_{file.name}"
        failed.parent.mkdir(parents=True, exist_ok=True)
        write(failed, nbformat.writes(notebook))
        raise ReportError(f"{file.name} failed ({_reason(error)}); see {failed}") from None
    notebook.metadata.pop("widgets", None)  # the state of widgets: a kernel makes it anew
    for output in _outputs(notebook):
        data = output.get("data", {})
        if LIVE in data:  # so that a second run changes nothing
            data[LIVE]["model_id"] = "0" * 32
            data["text/plain"] = "Controls: run this cell to see them."
        if "image/png" in data:
            data["image/png"] = compress(data["image/png"])
    return nbformat.writes(notebook) + "\n"


def _outputs(notebook) -> list:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [output for cell in cells for output in cell.outputs]


def _reason(error: Exception) -> str:
    """Return the error of a failed cell in one line."""
    name = getattr(error, "ename", type(error).__name__)
    message = str(getattr(error, "evalue", error)).strip().splitlines()
    return f"{name}: {message[0]}" if message else name


def compress(png: str) -> str:
    """Return a PNG in base64 in fewer bytes where possible, with every visible pixel as it was."""
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        opaque = image.mode == "RGBA" and image.getextrema()[3] == (255, 255)
        colors = image.convert("RGB") if opaque else image
        colors.save(buffer, "PNG", optimize=True, dpi=image.info.get("dpi"))
    smaller = base64.b64encode(buffer.getvalue()).decode()
    return min(png, smaller, key=len)


def run_with_profile(profile: str, seed: int = 0) -> list[Path]:
    """Run every notebook under papermill, one a core; return the HTML pages in runs/PROFILE.

    Args:
        profile: one of `study.PROFILES`.
        seed: the notebooks' parameter.

    Raises:
        ConfigError: the profile is unknown, or the seed is not a whole number.
        RunError: another process runs the notebooks of this profile.
        ReportError: a cell failed.
    """
    check_profile(profile)
    parameters = {"profile": profile, "seed": whole_number("seed", seed)}
    folder = paths.runs_dir() / profile
    with exclusive(folder):
        pages = pool.run_tasks(
            _run_with_papermill,
            NOTEBOOKS[::-1],  # those of Q2 first, which take longest
            (folder, parameters),
            total=len(NOTEBOOKS),
            unit="notebook",
            title="notebooks",
        )
        return pages[::-1]  # in the order of NOTEBOOKS


def _run_with_papermill(name: str, shared: tuple[Path, dict], report: pool.Report) -> Path:
    import papermill
    from nbclient.exceptions import DeadKernelError

    folder, parameters = shared
    output = folder / f"{name}.ipynb"
    try:
        papermill.execute_notebook(
            paths.NOTEBOOKS / f"{name}.ipynb",
            output,
            parameters,
            kernel_name="python3",
            execution_timeout=CELL_SECONDS,
            autosave_cell_every=30,
            progress_bar=False,
            extra_arguments=QUIET_KERNEL,
        )
    except (papermill.PapermillExecutionError, DeadKernelError) as error:
        message = f"{name}.ipynb failed ({_reason(error)}); see {output}"
        raise ReportError(message) from None
    page = write_page(output, parameters["profile"])
    report(1)
    return page


def write_page(file: Path, profile: str) -> Path:
    """Write a notebook that was run as an HTML page beside it, and return the page's path.

    Code is folded and formulas are MathML. Of widgets, which need a kernel, their picture stays.
    """
    import nbformat
    import pypandoc

    from .typeset import page as html_page

    notebook = nbformat.read(file, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_live(output)]
    for output in _outputs(notebook):
        data = output.get("data", {})
        data.pop(LIVE, None)
        for kind in ("text/latex", "text/markdown"):  # pandoc would drop them
            if kind in data and "text/html" not in data:
                data["text/html"] = pypandoc.convert_text(
                    data[kind], "html", format="markdown", extra_args=["--mathml"]
                )
    page = file.with_suffix(".html")
    options = [
        f"--lua-filter={paths.REPORT / 'fold.lua'}",
        f"--metadata=pagetitle:{file.stem}, profile {profile}",
        f"--variable=include-before:{BANNER.format(profile, MEANING[profile])}",
    ]
    text = html_page(nbformat.writes(notebook), paths.NOTEBOOKS, reader="ipynb", options=options)
    write(page, text)
    return page


def _is_live(output) -> bool:
    """Return whether an output only makes sense while the kernel runs: progress, for example."""
    data = output.get("data", {})
    return output.get("name") == "stderr" or (LIVE in data and "image/png" not in data)
