"""Record what popular counters report, and how long a forward pass takes.

    python report/measure_costs.py counters    # report/results/cost_counters.csv
    python report/measure_costs.py timing      # report/results/cost_timing.csv

The counters are no dependencies of the project: install them in an environment of their own. Each
that is installed replaces its rows of the table, the others' rows stay. (`thop` and
`ultralytics-thop` share an import name, so that they need one environment each.)
"""

import sys
import time
import timeit
import warnings
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import product

import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from smai_lib.colorization.model import ColorizationCNN
from smai_lib.core import paths
from smai_lib.core.files import record_checksum, write
from smai_lib.core.layers import use_torch_deconvolutions
from smai_lib.costs import formulas

COUNTERS_FILE = paths.RESULTS / "cost_counters.csv"
TIMING_FILE = paths.RESULTS / "cost_timing.csv"


def flop_counter_mode(model, images):
    """Return the count of torch's FlopCounterMode."""
    with FlopCounterMode(display=False) as counter:
        model(images)
    return counter.get_total_flops()


def fvcore(model, images):
    """Return the count of fvcore."""
    from fvcore.nn import FlopCountAnalysis

    return FlopCountAnalysis(model, images).unsupported_ops_warnings(False).total()


def ptflops_aten(model, images, backend="aten"):
    """Return the count of ptflops, which looks at operations."""
    from ptflops import get_model_complexity_info

    return get_model_complexity_info(
        model,
        tuple(images.shape[1:]),
        as_strings=False,
        backend=backend,
        print_per_layer_stat=False,
    )[0]


def ptflops_pytorch(model, images):
    """Return the count of ptflops, which looks at modules."""
    return ptflops_aten(model, images, backend="pytorch")


def thop(model, images):
    """Return the count of thop or ultralytics-thop."""
    from thop import profile

    return profile(model, (images,), verbose=False)[0]


def torchinfo(model, images):
    """Return the count of torchinfo."""
    from torchinfo import summary

    return summary(model, input_data=images, verbose=0).total_mult_adds


def torchprofile(model, images):
    """Return the count of torchprofile."""
    from torchprofile import profile_macs

    return profile_macs(model, images)


def torchscan(model, images):
    """Return the count of torchscan."""
    from torchscan import crawl_module

    return crawl_module(model, tuple(images.shape[1:]))["totals"]["macs"]["known_value"]


def flopth(model, images):
    """Return the count of flopth."""
    from flopth import flopth as count

    return count(model, inputs=(images,), bare_number=True)[0]


# distribution, name and unit of its number, units to a MAC, measurement
COUNTERS = [
    ("torch", "FlopCounterMode", "FLOP", 2, flop_counter_mode),
    ("fvcore", "FlopCountAnalysis", "flop", 1, fvcore),
    ("ptflops", "aten backend", "MAC", 1, ptflops_aten),
    ("ptflops", "pytorch backend", "MAC", 1, ptflops_pytorch),
    ("ultralytics-thop", "profile", "MAC", 1, thop),
    ("thop", "profile", "MAC", 1, thop),
    ("torchinfo", "total mult-adds", "mult-add", 1, torchinfo),
    ("torchprofile", "profile_macs", "MAC", 1, torchprofile),
    ("torchscan", "macs", "MAC", 1, torchscan),
    ("flopth", "flops", "FLOP", 1, flopth),
]


def measure_counters() -> pd.DataFrame:
    """Return the number of each counter for the network, and for one transposed convolution.

    count / (units_per_mac * macs) also holds what a counter adds for biases, BatchNorm, ReLU and
    pooling; deconv_factor does not: a bare ConvTranspose2d has nothing but its MACs.
    """
    macs = formulas.evaluate().loc["total", "macs"]
    deconv_macs = formulas.deconv(6, 10, 8, 8).macs
    rows = []
    for tool, reports, unit, units_per_mac, count in COUNTERS:
        try:
            release = version(tool)
        except PackageNotFoundError:
            continue
        model = use_torch_deconvolutions(ColorizationCNN()).eval()
        network = int(count(model, torch.zeros(1, 1, 32, 32)))
        deconv = nn.Sequential(nn.ConvTranspose2d(6, 10, 2, stride=2, bias=False)).eval()
        single = int(count(deconv, torch.zeros(1, 6, 8, 8)))
        rows.append(
            {
                "tool": tool,
                "version": release,
                "reports": reports,
                "unit": unit,
                "count": network,
                "units_per_mac": units_per_mac,
                "ratio": round(network / units_per_mac / macs, 4),
                "deconv_count": single,
                "deconv_factor": single / units_per_mac / deconv_macs,
                "torch": torch.__version__,
            }
        )
    return pd.DataFrame(rows)


@torch.inference_mode()
def measure_times(
    filters: tuple[int, ...] = (8, 16, 32, 64),
    kernels: tuple[int, ...] = (1, 3, 5, 7),
    *,
    images: int = 16,
    repeats: int = 5,
) -> pd.DataFrame:
    """Return the counts of one 32 x 32 image and the seconds it takes, a row a pair of NF and k.

    Seconds are processor time of one thread, so that other programs on the machine hardly change
    them: the shortest of `repeats` passes over a batch, after one that is not counted.
    """
    torch.set_num_threads(1)
    batch = torch.rand(images, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    rows = []
    for nf, kernel in product(filters, kernels):
        network = ColorizationCNN(num_filters=nf, kernel_size=kernel).eval()
        forward = partial(use_torch_deconvolutions(network), batch)
        forward()
        passes = timeit.repeat(forward, timer=time.process_time, number=1, repeat=repeats)
        total = formulas.evaluate(NF=nf, k=kernel).loc["total"]
        rows.append(
            {
                "NF": nf,
                "k": kernel,
                "macs": total["macs"],
                "report_macs": formulas.value_at(formulas.PUBLISHED["macs"], NF=nf, k=kernel),
                "weights": total["weights"],
                "prepool_outputs": total["prepool_outputs"],
                "seconds": min(passes) / images,
                "images": images,
                "threads": 1,
                "cpu": torch.backends.cpu.get_cpu_capability(),
                "torch": torch.__version__,
            }
        )
    return pd.DataFrame(rows)


def main(what: str) -> None:
    """Measure "timing" or "counters", and write the recorded table."""
    paths.RESULTS.mkdir(parents=True, exist_ok=True)
    if what == "timing":
        file = TIMING_FILE
        table = measure_times()
    else:
        file = COUNTERS_FILE
        table = measure_counters()
        if file.exists():
            kept = pd.read_csv(file)
            table = pd.concat([kept[~kept["tool"].isin(table["tool"])], table])
        table = table.sort_values(["deconv_factor", "tool", "reports"])
    write(file, table.to_csv(index=False))
    record_checksum(file)


if __name__ == "__main__":
    if sys.argv[1:] not in (["counters"], ["timing"]):
        sys.exit(__doc__)
    warnings.simplefilter("ignore")  # of the counters, about their own use of torch
    main(sys.argv[1])
