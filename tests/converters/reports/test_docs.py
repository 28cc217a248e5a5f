"""What the documentation shows is what there is."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

from converters import reports
from tests.converters.reports.schema_check import faults

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "reports.md").read_text("utf-8")


def test_every_key_of_the_json_example_is_described() -> None:
    example = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert example
    schema = json.loads(files(reports).joinpath("report.schema.json").read_text("utf-8"))
    found = faults(json.loads(example[1]), schema, schema)
    assert [fault for fault in found if " lacks " not in fault] == []
