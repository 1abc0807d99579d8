"""Every notebook in a real JupyterLab, in a real browser: run to its end, its widgets moved; and the pages that we make.

Needs a Chromium of the system; without one the tests are skipped. Pictures of every screen are kept in `runs/lab/`.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest
from playwright import sync_api

from smai_lib import report
from smai_lib.core import paths
from tests.exercises import answers, solved

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
SCREENS = paths.ROOT / "runs" / "lab"  # ignored by git, and kept when the tests have ended
SECONDS_OF_A_NOTEBOOK = 300
NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
WRITTEN = [page for page in (paths.ROOT / "report" / "report.html",) if page.is_file()]
# no news to fetch; every cell is drawn, also those that are out of sight
SETTINGS = {
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
    "notebook-extension/tracker": '{"windowingMode": "none"}',
}
KERNEL = "jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status"
RUN = """async () => {
    await jupyterapp.commands.execute('notebook:run-all-cells');
    return jupyterapp.shell.currentWidget.content.model.sharedModel.toJSON().cells.filter(cell => cell.cell_type === 'code');
}"""
TYPE = """async ([number, source]) => {
    const notebook = jupyterapp.shell.currentWidget.content;
    notebook.activeCellIndex = number;
    notebook.model.sharedModel.getCell(number).setSource(source);
    await jupyterapp.commands.execute('notebook:run-cell');
    return notebook.model.sharedModel.getCell(number).toJSON();
}"""
SHUT_DOWN = "async () => { await jupyterapp.shell.currentWidget?.sessionContext.shutdown(); }"
CONTROLS = "select, input, .noUi-handle, button"
WIDGETS = (
    f".jp-Notebook .jp-Cell:has(.jupyter-widgets :is({CONTROLS}))"  # a progress bar has no control
)
# what a widget shows beside its own controls: pictures, and text
ANSWER = """cell => [...cell.querySelectorAll('.jupyter-widgets img, .widget-html-content')]
    .map(shown => shown.src ?? shown.innerText).join()"""
BROKEN = "[...document.images].filter(image => !image.complete || !image.naturalWidth).map(image => image.alt)"

pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason="no Chromium on this system: apt-get install chromium"
)


@pytest.fixture(scope="module")
def browser():
    # ends with this file: while it is open, nobody else in this process can start an event loop
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser):
    """A page that keeps what went wrong in it, in `page.errors`."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.errors = []
    page.on(
        "console",
        lambda message: (
            message.type == "error" and page.errors.append(f"{message.text} {message.location}")
        ),
    )
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    yield page
    page.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of one JupyterLab on copies of the notebooks: `{}` is the place for a file's name."""
    folder = tmp_path_factory.mktemp("lab")
    for name, text in SETTINGS.items():
        file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    shutil.copytree(paths.NOTEBOOKS, folder / "notebooks", ignore=shutil.ignore_patterns(".*"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex()
    environment = os.environ | {
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "SMAI_RUNS": str(folder / "runs"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "WANDB_MODE": "disabled",
    }
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jupyterlab",
                "--no-browser",
                "--allow-root",
                "--expose-app-in-browser",
                f"--ServerApp.port={port}",
                f"--IdentityProvider.token={token}",
                f"--ServerApp.root_dir={folder / 'notebooks'}",
            ],
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(120):
            assert server.poll() is None, (folder / "log").read_text()
            with suppress(OSError):
                urllib.request.urlopen(f"{address}/api", timeout=1).close()
                break
            with suppress(subprocess.TimeoutExpired):
                server.wait(0.5)
        yield f"{address}/lab/tree/{{}}?token={token}&reset"
    finally:
        server.terminate()
        server.wait(30)


def keep_screens(page, name: str, scrolled) -> int:
    """Write a picture of every screen of what `scrolled` scrolls through; returns how many."""
    SCREENS.mkdir(parents=True, exist_ok=True)
    for old in SCREENS.glob(f"{name}_*.png"):
        old.unlink()
    height, seen = scrolled.evaluate("box => [box.scrollHeight, box.clientHeight]")
    screens = -(-height // seen)
    for number in range(screens):
        scrolled.evaluate("(box, top) => box.scrollTo(0, top)", number * seen)
        page.screenshot(path=SCREENS / f"{name}_{number:02}.png")
    return screens


def move(page, control) -> None:
    """Move a control of a widget by the keyboard, as a reader would: to its next value, or back from its last."""
    control.scroll_into_view_if_needed()
    if control.evaluate("node => node.tagName") == "SELECT":
        control.select_option(
            index=(control.evaluate("node => node.selectedIndex") + 1)
            % control.locator("option").count()
        )
    elif control.evaluate("node => node.tagName") == "INPUT":
        control.press(
            "ArrowDown" if control.input_value() == control.get_attribute("max") else "ArrowUp"
        )
        control.press("Enter")
    else:
        last = control.get_attribute("aria-valuenow") == control.get_attribute("aria-valuemax")
        control.press("ArrowLeft" if last else "ArrowRight")


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs_in_jupyterlab_its_widgets_answer_and_its_exercises_are_solved(
    file, lab, page
):
    page.set_default_timeout(1000 * SECONDS_OF_A_NOTEBOOK)
    page.goto(lab.format(file.name))
    page.wait_for_function(f"globalThis.jupyterapp && {KERNEL} === 'idle'")
    try:
        cells = page.evaluate(RUN)
        failed = [
            output.get("evalue")
            for cell in cells
            for output in cell["outputs"]
            if output["output_type"] == "error"
        ]
        assert failed == [] and all(
            cell["execution_count"] for cell in cells if "".join(cell["source"]).strip()
        )
        stored = file.read_text().count('"application/vnd.jupyter.widget-view+json"')
        widgets = page.locator(WIDGETS)
        assert widgets.count() == stored
        for cell in widgets.all():
            for control in cell.locator(".jupyter-widgets").locator(CONTROLS).all():
                before = cell.evaluate(ANSWER)
                assert before, "a widget that shows nothing"
                move(page, control)
                page.wait_for_function(
                    f"([cell, before]) => ({ANSWER})(cell) !== before",
                    arg=[cell.element_handle(), before],
                    timeout=60_000,
                )
        assert keep_screens(page, file.stem, page.locator(".jp-WindowedPanel-outer").first) > 3
        typed = [
            page.evaluate(TYPE, [number, source])
            for number, source in solved(nbformat.read(file, as_version=4)).items()
        ]
        said = answers([nbformat.from_dict(cell) for cell in typed])
        assert len(said) > 1 and set(said) == {"solved"}, said
        assert page.errors == []
    finally:
        page.evaluate(SHUT_DOWN)


def check_page(page, file: Path, name: str) -> None:
    """Nothing is fetched from outside, every picture is there, nothing sticks out of a screen, also of a telephone's."""
    outside = []
    page.on(
        "request",
        lambda request: request.url.startswith(("file:", "data:")) or outside.append(request.url),
    )
    page.goto(file.as_uri())
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, (
            f"{name}, {width} pixels wide"
        )
    assert page.locator("img").count() > 1 and page.evaluate(BROKEN) == []
    assert keep_screens(page, name, page.locator("html")) > 3
    assert page.errors == outside == []


@pytest.mark.parametrize("file", WRITTEN, ids=lambda file: file.stem)
def test_the_written_report_is_readable_in_a_browser(file, page):
    check_page(page, file, "report")


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebooks_page_is_readable_in_a_browser(file, page, tmp_path):
    check_page(
        page, report.write_page(Path(shutil.copy(file, tmp_path)), "recorded"), f"page_{file.stem}"
    )
