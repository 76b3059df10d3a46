"""Write the tables of the docs anew from `benchmarks/results/`: `make tables`.

<!-- table: NAME --> … <!-- end -->             the targets of NAME.json
<!-- rows: NAME COLUMN … --> … <!-- end -->     these columns of its rows
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, render_rows, render_targets

ROOT = Path(__file__).parent.parent
_TABLE = re.compile(r"(<!-- table: (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_ROWS = re.compile(r"(<!-- rows: (\S+) (.+?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def main() -> int:
    """Every page of the docs, and the README; those that change are named."""
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        text = page.read_text(encoding="utf-8")
        fresh = _TABLE.sub(lambda m: m[1] + render_targets(_read(m[2])) + m[4], text)
        fresh = _ROWS.sub(lambda m: m[1] + render_rows(_read(m[2]), m[3].split()) + m[5], fresh)
        if fresh != text:
            page.write_text(fresh, encoding="utf-8")
            sys.stdout.write(f"{page.relative_to(ROOT)}\n")
    return 0


def _read(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return result


if __name__ == "__main__":
    sys.exit(main())
