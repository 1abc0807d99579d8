"""Every notebook in JupyterLab in a browser, and the pages that we make.

Pictures of every screen are kept in `runs/lab/`.
"""

import os
import secrets
import shutil
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest

from smai_lib import notebooks
from smai_lib.core import paths
from tests.conftest import free_port
from tests.exercises import answers, solved

sync_api = pytest.importorskip("playwright.sync_api", reason="needs `pip install -e .[test]`")
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, PROGRAMS)), None)
SCREENS = paths.ROOT / "runs" / "lab"  # ignored by git
NOTEBOOK_SECONDS = 300
NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
# no news to fetch; every cell is drawn, also those that are out of sight
SETTINGS = {
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
    "notebook-extension/tracker": '{"windowingMode": "none"}',
}
KERNEL = "jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status"
RUN_ALL = """async () => {
    await jupyterapp.commands.execute('notebook:run-all-cells');
    const model = jupyterapp.shell.currentWidget.content.model.sharedModel;
    return model.toJSON().cells.filter(cell => cell.cell_type === 'code');
}"""
TYPE = """async ([number, source]) => {
    const notebook = jupyterapp.shell.currentWidget.content;
    notebook.activeCellIndex = number;
    notebook.model.sharedModel.getCell(number).setSource(source);
    await jupyterapp.commands.execute('notebook:run-cell');
    return notebook.model.sharedModel.getCell(number).toJSON();
}"""
SHUT_DOWN = "async () => { await jupyterapp.shell.currentWidget?.sessionContext.shutdown(); }"
CONTROLS = "select, input:not([type=text]), .noUi-handle, button"  # a file name is optional
WIDGETS = f".jp-Notebook .jp-Cell:has(.jupyter-widgets :is({CONTROLS}))"  # no progress bars
# what a widget shows beside its controls: pictures and text
SHOWN = """cell => [...cell.querySelectorAll('.jupyter-widgets img, .widget-html-content')]
    .map(part => part.src ?? part.innerText).join()"""
BROKEN = """[...document.images].filter(image => !image.complete || !image.naturalWidth)
    .map(image => image.alt)"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium"),
]
each_notebook = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)


@pytest.fixture(scope="module")
def browser():
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser):
    """A page whose errors are in `page.errors`."""

    def keep(message):
        if message.type == "error":
            page.errors.append(f"{message.text} {message.location}")

    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.errors = []
    page.on("console", keep)
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    yield page
    page.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab on copies of the notebooks, with `{}` in place of the file."""
    folder = tmp_path_factory.mktemp("lab")
    for name, text in SETTINGS.items():
        file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(text, encoding="utf-8")
    for part in (paths.NOTEBOOKS, paths.FIGURES):
        shutil.copytree(part, folder / part.name, ignore=shutil.ignore_patterns(".*"))
    port = free_port()
    token = secrets.token_hex()
    options = [
        "--no-browser",
        "--allow-root",
        "--expose-app-in-browser",
        f"--ServerApp.port={port}",
        f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={folder}",
    ]
    environment = os.environ | {
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "SMAI_RUNS": str(folder / "runs"),
        "WANDB_MODE": "disabled",
    }
    command = [sys.executable, "-m", "jupyterlab", *options]
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(120):
            assert server.poll() is None, (folder / "log").read_text(encoding="utf-8")
            with suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=1).close()
                break
            with suppress(subprocess.TimeoutExpired):
                server.wait(0.5)
        yield f"http://127.0.0.1:{port}/lab/tree/notebooks/{{}}?token={token}&reset"
    finally:
        server.terminate()
        server.wait(30)


def keep_screens(page, name: str, scrolled) -> int:
    """Write a picture of every screen of what `scrolled` scrolls; return how many there are."""
    SCREENS.mkdir(parents=True, exist_ok=True)
    for old in SCREENS.glob(f"{name}_*.png"):
        old.unlink()
    height, seen = scrolled.evaluate("box => [box.scrollHeight, box.clientHeight]")
    screens = -(-height // seen)
    for number in range(screens):
        scrolled.evaluate("(box, top) => box.scrollTo(0, top)", number * seen)
        page.screenshot(path=SCREENS / f"{name}_{number:02}.png")
    return screens


def move(control) -> None:
    """Move a control of a widget by the keyboard to its next value, or back from its last."""
    control.scroll_into_view_if_needed()
    kind = control.evaluate("node => node.tagName")
    if kind == "SELECT":
        chosen = control.evaluate("node => node.selectedIndex")
        control.select_option(index=(chosen + 1) % control.locator("option").count())
    elif kind == "INPUT":
        at_end = control.input_value() == control.get_attribute("max")
        control.press("ArrowDown" if at_end else "ArrowUp")
        control.press("Enter")
    else:
        at_end = control.get_attribute("aria-valuenow") == control.get_attribute("aria-valuemax")
        control.press("ArrowLeft" if at_end else "ArrowRight")


def check_cells(cells) -> None:
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert [output["evalue"] for output in outputs if output["output_type"] == "error"] == []
    assert all(cell["execution_count"] for cell in cells if "".join(cell["source"]).strip())


def check_widgets(page, file) -> None:
    """Every control changes what its widget shows."""
    stored = file.read_text(encoding="utf-8").count(f'"{notebooks.LIVE}"')
    assert page.locator(WIDGETS).count() == stored
    for cell in page.locator(WIDGETS).all():
        for control in cell.locator(".jupyter-widgets").locator(CONTROLS).all():
            shows_other = f"([cell, before]) => ![before, ''].includes(({SHOWN})(cell))"
            handle = cell.element_handle()
            page.wait_for_function(shows_other, arg=[handle, ""], timeout=60_000)
            before = cell.evaluate(SHOWN)
            move(control)
            page.wait_for_function(shows_other, arg=[handle, before], timeout=60_000)


def check_exercises(page, file) -> None:
    exercises = solved(nbformat.read(file, as_version=4))
    typed = [page.evaluate(TYPE, [number, source]) for number, source in exercises.items()]
    results = answers([nbformat.from_dict(cell) for cell in typed])
    assert len(results) > 1 and set(results) == {"solved"}, results


@each_notebook
def test_a_notebook_runs_in_jupyterlab_with_its_widgets_and_exercises(file, lab, page):
    page.set_default_timeout(1000 * NOTEBOOK_SECONDS)
    page.goto(lab.format(file.name))
    page.wait_for_function(f"globalThis.jupyterapp && {KERNEL} === 'idle'")
    try:
        check_cells(page.evaluate(RUN_ALL))
        check_widgets(page, file)
        assert keep_screens(page, file.stem, page.locator(".jp-WindowedPanel-outer").first) > 3
        check_exercises(page, file)
        assert page.errors == []
    finally:
        page.evaluate(SHUT_DOWN)


@pytest.mark.parametrize("name", ["report", *notebooks.NOTEBOOKS])
def test_a_page_is_whole_on_a_phone_and_a_screen_without_a_network(name, page, tmp_path):
    if name == "report":
        file = paths.REPORT / "report.html"
    else:
        copy = Path(shutil.copy(paths.NOTEBOOKS / f"{name}.ipynb", tmp_path))
        file = notebooks.write_page(copy, "recorded")
    requested = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(file.as_uri())
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("img").count() > 1 and page.evaluate(BROKEN) == []
    assert keep_screens(page, f"page_{name}", page.locator("html")) > 3
    assert [url for url in requested if not url.startswith(("file:", "data:"))] == []
    assert page.errors == []
