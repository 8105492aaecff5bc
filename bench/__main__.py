"""``python -m bench NAME``: run one part of the bench."""

import runpy
import sys
from pathlib import Path


def main() -> None:
    """Run the part, or list all of them with their first lines."""
    folder = Path(__file__).parent
    parts = sorted(
        p.stem
        for p in folder.iterdir()
        if not p.name.startswith("_") and (p.suffix == ".py" or (p / "__main__.py").exists())
    )
    if len(sys.argv) < 2 or sys.argv[1] not in parts:
        sys.stderr.write(f"one of: {', '.join(parts)}\n")
        sys.exit(2)
    name = sys.argv.pop(1)
    runpy.run_module(f"bench.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
