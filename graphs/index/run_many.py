"""Run a script of a source tree many times in one interpreter: `python run_many.py SCRIPT < ARGUMENTS`.

Standard input holds a JSON list of argument lists. Starting Python anew for each of a hundred small headers
would take ten times as long as making them.
"""

import json
import runpy
import sys
from pathlib import Path


def main(script: str) -> int:
    """Run `script` once for each argument list; the number of runs that failed, 100 at most."""
    failed = 0
    sys.path.insert(0, str(Path(script).parent))
    for arguments in json.load(sys.stdin):
        sys.argv = [script, *arguments]
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            failed += bool(end.code)
        except (
            Exception
        ) as error:  # the script is the tree's: whatever it does, the others must still be made
            print(f"{arguments[-1]}: {error!r}", file=sys.stderr)
            failed += 1
    return min(failed, 100)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
