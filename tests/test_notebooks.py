"""The notebooks: their parameters, their stored outputs, and how they are run."""

import base64
import io
import os
import re
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
from PIL import Image

from smai_lib import notebooks
from smai_lib.core import paths
from smai_lib.core.errors import ConfigError, ReportError, RunError
from smai_lib.core.files import exclusive

FILES = [paths.NOTEBOOKS / f"{name}.ipynb" for name in notebooks.NOTEBOOKS]
MEGABYTES = 2.5
DOT = (  # a PNG of one pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4"
    "2mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
node = nbformat.v4

stored = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def code_cells(file):
    cells = nbformat.read(file, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]


@pytest.fixture
def check(monkeypatch):
    """Check the parameters of a notebook whose second cell papermill, or a reader, inserted."""

    def check(cell, **values):
        variables = {"profile": "recorded", "seed": 0} | values
        monkeypatch.setattr(notebooks, "get_ipython", lambda: SimpleNamespace(user_ns=variables))
        notebooks.check_parameters(["", "seed = 0", cell], "profile", "seed")

    return check


def test_every_notebook_is_listed_and_linked():
    assert sorted(FILES) == sorted(paths.NOTEBOOKS.glob("*.ipynb"))
    readme = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    assert [file.name for file in FILES if f"notebooks/{file.name}" not in readme] == []


@stored
def test_a_stored_notebook_can_fail_as_a_regression_test(file):
    """nbval compares nothing in a cell without an execution count."""
    cells = code_cells(file)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert [output for output in outputs if output.output_type == "error"] == []
    assert "widgets" not in nbformat.read(file, as_version=4).metadata
    assert file.stat().st_size < MEGABYTES * 1e6


@stored
def test_a_notebook_begins_with_its_parameters_and_checks_them(file):
    first, second = code_cells(file)[:2]
    assert "parameters" in first.metadata.tags
    assert re.match(r'profile = "recorded".*\nseed = 0$', first.source)
    assert 'notebooks.check_parameters(In, "profile", "seed")' in second.source


def test_a_bad_parameter_is_one_clear_error(check):
    with pytest.raises(ConfigError, match="unknown parameter 'profil'; this notebook has"):
        check('# Parameters\nprofil = "quick"\n')
    with pytest.raises(ConfigError, match="profile: found 'fast', expected one of recorded"):
        check("", profile="fast")
    with pytest.raises(ConfigError, match="seed: found '3', expected a whole number"):
        check("", seed="3")


@pytest.mark.parametrize(
    "cell",
    [
        '# Parameters\nprofile = "quick"\nseed = 3\n',  # papermill's
        "# Parameters\n%time depth = 3",
        "# Parameters\nfor depth in range(3):\n    width = 2",
        "# Parameters of the plot\nsize = 3",
    ],
)
def test_known_parameters_and_a_readers_own_cells_pass(check, cell):
    check(cell, seed=3)


def test_a_batch_fails_with_the_name_of_the_parameter(tmp_path):
    notebook = paths.NOTEBOOKS / "q2_cost_formulas.ipynb"
    options = {"kernel_name": "python3", "progress_bar": False}
    with pytest.raises(papermill.PapermillExecutionError, match="unknown parameter 'sed'"):
        papermill.execute_notebook(notebook, tmp_path / "out.ipynb", {"sed": 1}, **options)


def test_a_notebook_refuses_to_run_without_asserts(check, monkeypatch):
    monkeypatch.setattr(notebooks, "sys", SimpleNamespace(flags=SimpleNamespace(optimize=1)))
    with pytest.raises(ConfigError, match="PYTHONOPTIMIZE: found a value, expected none"):
        check("")


def test_text_in_a_table_is_no_html():
    table = notebooks.show(pd.DataFrame({"name": ["<script>"], "<b>": [0.5]})).data
    assert "<script>" not in table and "<b>" not in table
    assert "&lt;script&gt;" in table and "0.5000" in table


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a notebook that draws a picture and a progress bar, and one that fails."""
    sources = {
        "good": "from IPython.display import Image, display\nfrom ipywidgets import IntProgress\n"
        "display(IntProgress())\ndisplay(Image('picture.png'))",
        "bad": "print(1)\n1 / 0",
    }
    for name, source in sources.items():
        notebook = node.new_notebook(cells=[node.new_code_cell(source)])
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    ramp = np.add.outer(np.arange(200), np.arange(300)).astype(np.uint8)
    pixels = np.stack([ramp, 255 - ramp, ramp // 2], axis=2)  # more than 112 colours
    Image.fromarray(pixels).convert("RGBA").save(tmp_path / "picture.png", compress_level=0)
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tuple(sources))
    return tmp_path


def test_running_in_place_keeps_every_pixel_in_fewer_bytes(folder, capfd):
    notebooks.run_in_place(["good"])
    bar, picture = code_cells(folder / "good.ipynb")[0].outputs
    png = base64.b64decode(picture.data["image/png"])
    original = (folder / "picture.png").read_bytes()
    with Image.open(io.BytesIO(png)) as kept, Image.open(io.BytesIO(original)) as drawn:
        assert np.array_equal(np.array(kept.convert("RGBA")), np.array(drawn))
    assert len(png) < len(original) / 2
    assert notebooks.LIVE in bar.data
    assert "widgets" not in nbformat.read(folder / "good.ipynb", as_version=4).metadata
    assert "TCP" not in capfd.readouterr().err


def test_a_notebook_that_fails_stays_as_it_was(folder):
    before = (folder / "bad.ipynb").read_bytes()
    with pytest.raises(ReportError, match=r"bad.ipynb failed \(ZeroDivisionError: division"):
        notebooks.run_in_place(["bad"])
    assert (folder / "bad.ipynb").read_bytes() == before
    assert "division by zero" in (paths.runs_dir() / "failed_bad.ipynb").read_text(encoding="utf-8")


def test_a_folder_that_is_read_only_is_refused_before_the_work(folder, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ReportError, match="cannot write to"):
        notebooks.run_in_place(["good"])
    assert "running" not in capsys.readouterr().out


def test_a_batch_is_run_once_at_a_time_and_leaves_nothing_for_a_bad_seed(folder):
    with pytest.raises(ConfigError, match="seed: found 'abc'"):
        notebooks.run_with_profile("quick", "abc")
    assert not paths.runs_dir().exists()
    with exclusive(paths.runs_dir() / "quick"), pytest.raises(RunError, match="is in use"):
        notebooks.run_with_profile("quick")


def test_a_page_shows_formulas_and_conclusions_and_no_live_outputs(tmp_path):
    def shown(kind, text):
        return node.new_output("display_data", data={kind: text, "text/plain": "plain"})

    outputs = [
        shown(notebooks.LIVE, {"model_id": "1"}),
        node.new_output("display_data", data={notebooks.LIVE: {"model_id": "2"}, "image/png": DOT}),
        node.new_output("stream", name="stderr", text="50%"),
        node.new_output("stream", name="stdout", text="kept"),
        shown("text/latex", r"$\displaystyle N_F^2$"),
        shown("text/markdown", "- It *rains*."),
    ]
    cell = node.new_code_cell("print(1)", outputs=outputs, execution_count=1)
    nbformat.write(node.new_notebook(cells=[cell]), tmp_path / "n.ipynb")
    page = notebooks.write_page(tmp_path / "n.ipynb", "quick").read_text(encoding="utf-8")
    assert "kept" in page and "<math" in page and "<li>It <em>rains</em>.</li>" in page
    assert "50%" not in page and ">plain<" not in page and "model_id" not in page
    assert DOT in page  # the picture of a widget
    assert '<details class="code">' in page and 'href="report.html"' in page
    assert "Profile <b>quick</b>" in page and notebooks.MEANING["quick"] in page
