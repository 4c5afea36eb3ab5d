"""Run every benchmark, or those named: `python -m benchmarks [tracer index ...]`."""

import importlib
import pkgutil
import sys

import benchmarks


def main(names: list[str]) -> int:
    """Run the benchmarks `bench_NAME`, each with its `main()`, and print what they measure."""
    there = [m.name.removeprefix("bench_") for m in pkgutil.iter_modules(benchmarks.__path__)]
    there = [name for name in there if name != "__main__"]
    unknown = set(names) - set(there)
    if unknown:
        print(f"no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(there)}", file=sys.stderr)
        return 2
    for name in names or there:
        print(f"== {name}", flush=True)
        importlib.import_module(f"benchmarks.bench_{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
