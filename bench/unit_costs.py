"""Print what the units of a declared cost take on this machine, beside the reference machine's."""

from importlib.util import find_spec

from harness.measure.workload_probe import probe_units
from harness.predict.workload_units import REFERENCE


def main() -> None:
    """One line a unit: here, on the reference machine, ratio."""
    here = probe_units(engine=find_spec("onnxruntime") is not None and find_spec("onnx") is not None)
    print(f"{here.machine}\n{REFERENCE.machine}")
    for name in here.__struct_fields__:
        one, two = getattr(here, name), getattr(REFERENCE, name)
        if isinstance(one, float):
            print(f"{name:24} {one:.3g}, reference {two:.3g}, ratio {one / two:.2f}")
    tables = {n: getattr(here, n) for n in here.__struct_fields__ if n.endswith("_rates")}
    for name, table in tables.items():
        print(f"{name}: {', '.join(f'{rate:.3g}/s at {size}' for size, rate in table)}")


if __name__ == "__main__":
    main()
