"""The notebook runs from the first cell to the last, in an empty folder, and finds what is there."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / 'notebooks' / 'from_folder_to_report.ipynb'


@pytest.mark.slow
def test_from_folder_to_report(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.get('outputs') for cell in notebook.cells), 'stored without outputs, which would grow old'
    NotebookClient(notebook, timeout=300, resources={'metadata': {'path': str(tmp_path)}}).execute()

    outputs = [output for cell in notebook.cells for output in cell.get('outputs', [])]
    assert any('image/png' in output.get('data', {}) for output in outputs)
    text = ''.join(output.get('text', '') for output in outputs)
    accuracy = float(re.search(r'accuracy of the unlabelled images: ([\d.]+)%', text)[1])
    assert accuracy > 80  # chance: 20
    assert (tmp_path / 'found' / 'report.html').is_file()
