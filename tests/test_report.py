import re

import nbformat
import pandas as pd
import papermill
import pytest

from smai_lib import document, notebook, report, studies
from smai_lib.core import paths, runs

NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("*.ipynb"))


def code_cells(file):
    return [
        cell
        for cell in nbformat.read(file, as_version=4).cells
        if cell.cell_type == "code" and cell.source.strip()
    ]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_committed_notebook_can_fail_as_a_regression_test(file):
    """nbval compares nothing in a cell without an execution count."""
    cells = code_cells(file)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)
    assert file.stat().st_size < 300_000  # `make notebooks` shrinks pictures


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_committed_notebook_keeps_the_house_rules(file):
    cells = code_cells(file)
    parameters = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(parameters) == 1 and parameters[0] is cells[0]
    assert 'profile = "recorded"' in parameters[0].source
    for cell in cells:
        assert len(cell.source.splitlines()) <= 30, cell.source
        if "NBVAL_IGNORE_OUTPUT" in cell.source:
            assert "assert " in cell.source, cell.source


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_every_notebook_is_in_the_report_and_the_readme(file):
    assert file.stem in report.NOTEBOOKS
    assert f"notebooks/{file.name}" in document.README.read_text()


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_an_unknown_parameter_fails_the_batch(file, tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="unknown parameter 'profil'"):
        papermill.execute_notebook(
            file,
            tmp_path / "out.ipynb",
            {"profil": "quick"},
            kernel_name="python3",
            progress_bar=False,
        )


def test_a_seed_that_is_no_number_fails_the_batch():
    with pytest.raises(ValueError, match="'seed': found 'abc', expected a value of type int"):
        notebook.check_parameters(['# Parameters\nseed = "abc"\n'], "profile", "seed")


@pytest.mark.parametrize(
    "profile, seed, message",
    [
        ("../../x", 0, "profile: found '../../x', expected one of recorded"),
        ("quick", "abc", "'seed': found 'abc'"),
    ],
)
def test_a_report_of_nothing_known_leaves_no_file(profile, seed, message, tmp_path, monkeypatch):
    monkeypatch.setenv("SMAI_RUNS", str(tmp_path / "a" / "b" / "runs"))
    with pytest.raises(ValueError, match=message):
        report.make_report(profile, seed)
    assert list(tmp_path.iterdir()) == []


def test_two_reports_at_once_are_one(monkeypatch):
    monkeypatch.setattr(
        papermill, "execute_notebook", lambda *arguments, **settings: pytest.fail("began")
    )
    with (
        runs.exclusive(paths.runs_dir() / "quick", runs.RunError),
        pytest.raises(runs.RunError, match="quick is in use by another process"),
    ):
        report.make_report("quick")


def test_names_in_a_table_are_text():
    table = notebook.show(pd.DataFrame({"name": ["<script>alert(1)</script>"], "<b>": [0.5]}))
    assert (
        "<script>" not in table.data
        and "<b>" not in table.data
        and "&lt;script&gt;" in table.data
        and "0.5000" in table.data
    )


def test_a_conclusion_is_told_only_where_it_was_checked():
    assert notebook.conclude(True, "one", "two").data == "- one\n- two"
    assert (
        "one" not in notebook.conclude(False, "one").data
        and "Nothing is concluded" in notebook.conclude(False, "one").data
    )


def test_known_parameters_and_ordinary_cells_pass():
    notebook.check_parameters(
        ["x = 1", '# Parameters\nprofile = "quick"\nseed = 3\n'], "profile", "seed"
    )


def test_an_unknown_profile_fails_the_batch(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="recorded, quick, full"):
        papermill.execute_notebook(
            paths.NOTEBOOKS / "q1_multitask.ipynb",
            tmp_path / "out.ipynb",
            {"profile": "fast"},
            kernel_name="python3",
            progress_bar=False,
        )


def test_quick_trains_for_real_from_any_folder_and_becomes_a_page(tmp_path, monkeypatch):
    """On the sample, which says so: the ten runs, then one page that needs nothing from outside."""
    monkeypatch.setenv("SMAI_FASHION_MNIST", "sample")
    monkeypatch.setattr(report, "NOTEBOOKS", ("q1_multitask",))
    monkeypatch.chdir(tmp_path)
    written = report.make_report("quick", seed=1)
    page, text = written.with_name("q1_multitask.html").read_text(), written.read_text()
    assert len(list((tmp_path / "runs" / "quick" / "q1_configs").glob("*/result.json"))) == 10
    for study in (
        studies.ten_configs("quick", 1),
        studies.published_configs("quick", 1),
        studies.lambda_study("quick", 1),
    ):
        trained = {
            file.parent.name
            for file in (tmp_path / "runs" / "quick" / study.name).glob("*/result.json")
        }
        assert trained == {spec.run_id for spec in study.specs}, (
            study.name
        )  # `run` beforehand leaves nothing to train
    chapter = text[text.index('<h1 data-number="3" id="here"') : text.index('id="q1"')]
    assert (
        "<code>q1_configs</code>" in chapter and ">sample<" in chapter and "q2_sweep" not in chapter
    )
    for anchor in re.findall(r'href="q1_multitask\.html#([^"]+)"', text):
        assert f'id="{anchor}"' in page, anchor
    assert '<details class="code">' in page and 'href="report.html"' in page
    assert (
        "SAMPLE DATA" in page and "Profile <b>quick</b>" in page and report.MEANING["quick"] in page
    )
    assert "<math" in page and "data:image/png;base64," in page
    page = re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)  # a picture's letters may be any
    for outside in ('src="http', 'href="http', "cdn", "application/vnd.jupyter.widget"):
        assert outside not in page, outside


@pytest.mark.parametrize("name", report.NOTEBOOKS)
def test_a_notebook_lets_each_study_choose_its_images(name):
    """Those of another study are fewer under `quick`: other runs, which `run` did not train."""
    assert "profile, seed, data" not in (paths.NOTEBOOKS / f"{name}.ipynb").read_text()


def test_live_outputs_are_left_out_of_the_page(tmp_path):
    node = nbformat.v4
    bar = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "0%"}
    cell = node.new_code_cell(
        "1",
        outputs=[
            node.new_output("display_data", data=bar),
            node.new_output("stream", name="stderr", text="50%"),
            node.new_output("stream", name="stdout", text="kept"),
        ],
    )
    nbformat.write(node.new_notebook(cells=[cell]), tmp_path / "n.ipynb")
    page = report.write_page(tmp_path / "n.ipynb", "quick").read_text()
    assert (
        "kept" in page and "50%" not in page and "0%</pre>" not in page and "0%</code>" not in page
    )


def test_formulas_and_conclusions_in_outputs_are_shown(tmp_path):
    node = nbformat.v4
    data = {"text/latex": r"$\displaystyle N_F^2$", "text/plain": "Math"}
    formula = node.new_output("execute_result", data=data, execution_count=1)
    told = node.new_output(
        "display_data", data={"text/markdown": "- It *rains*.", "text/plain": "Markdown"}
    )
    cell = node.new_code_cell("1", outputs=[formula, told], execution_count=1)
    nbformat.write(node.new_notebook(cells=[cell]), tmp_path / "n.ipynb")
    page = report.write_page(tmp_path / "n.ipynb", "quick").read_text()
    assert "<math" in page and ">Math<" not in page
    assert "<li>It <em>rains</em>.</li>" in page and ">Markdown<" not in page
