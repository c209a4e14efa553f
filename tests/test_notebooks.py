"""Notebooks run, quickly, and what is committed is what comes out."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

REPOSITORY = Path(__file__).parent.parent
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


def said(notebook: nbformat.NotebookNode) -> list[str]:
    """What each cell prints or returns, as text; pictures as no more than that there is one.

    Cells with the tag ``timing`` are left out: their figures are of one machine at one time.
    """
    return [
        "".join(output.get("text") or output["data"]["text/plain"] for output in cell["outputs"])
        for cell in notebook["cells"]
        if cell["cell_type"] == "code" and "timing" not in cell["metadata"].get("tags", [])
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_says_what_is_committed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    committed = nbformat.read(path, as_version=4)
    again = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    patient = {"timeout": 900, "startup_timeout": 900}
    NotebookClient(again, coalesce_streams=True, resources=where, **patient).execute()
    assert said(again) == said(committed)
    assert "NOT equal" not in str(said(again))
    text = path.read_text()
    assert str(REPOSITORY) not in text
    assert str(Path.home()) not in text or Path.home() == Path("/")  # as of a container's user


def test_there_are_notebooks() -> None:
    assert {path.stem for path in NOTEBOOKS} == {"nonlocal_block", "table2", "your_network"}
