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
from smai_lib.core import checksums, paths
from smai_lib.core.layers import textbook
from smai_lib.costs import formulas

SIZES = {"NIC": 1, "NF": 32, "NC": 24, "k": 3, "H": 32, "W": 32}
COUNTERS_FILE, TIMING_FILE = paths.RESULTS / "cost_counters.csv", paths.RESULTS / "cost_timing.csv"


def flop_counter_mode(model, images):
    with FlopCounterMode(display=False) as counter:
        model(images)
    return counter.get_total_flops()


def fvcore(model, images):
    from fvcore.nn import FlopCountAnalysis

    return FlopCountAnalysis(model, images).unsupported_ops_warnings(False).total()


def ptflops_aten(model, images, backend="aten"):
    from ptflops import get_model_complexity_info

    return get_model_complexity_info(
        model,
        tuple(images.shape[1:]),
        as_strings=False,
        backend=backend,
        print_per_layer_stat=False,
    )[0]


def ptflops_pytorch(model, images):
    return ptflops_aten(model, images, backend="pytorch")


def thop(model, images):
    from thop import profile

    return profile(model, (images,), verbose=False)[0]


def torchinfo(model, images):
    from torchinfo import summary

    return summary(model, input_data=images, verbose=0).total_mult_adds


def torchprofile(model, images):
    from torchprofile import profile_macs

    return profile_macs(model, images)


def torchscan(model, images):
    from torchscan import crawl_module

    return crawl_module(model, tuple(images.shape[1:]))["totals"]["macs"]["known_value"]


def flopth(model, images):
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
    """One row a counter: its number for the network, and for one transposed convolution alone.

    count / (units_per_mac * macs) also holds what a counter adds for biases, BatchNorm, ReLU and
    pooling; deconv_factor does not: a bare ConvTranspose2d has nothing but its MACs.
    """
    macs = formulas.evaluate(formulas.HAND, **SIZES).loc["total", "macs"]
    deconv_macs = formulas.deconv(6, 10, 8, 8).macs
    rows = []
    for tool, reports, unit, units_per_mac, count in COUNTERS:
        try:
            release = version(tool)
        except PackageNotFoundError:
            continue
        model = textbook(ColorizationCNN()).eval()
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
    """One row a pair of NF and k: the counts of one 32 x 32 image, and the seconds that it takes.

    Seconds are processor time of one thread, so that other programs on the machine hardly change
    them; the least of `repeats` passes over a batch, after one that is not counted.
    """
    torch.set_num_threads(1)
    rows, batch = [], torch.rand(images, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    for nf, kernel in product(filters, kernels):
        forward = partial(
            textbook(ColorizationCNN(num_filters=nf, kernel_size=kernel)).eval(), batch
        )
        forward()
        seconds = (
            min(timeit.repeat(forward, timer=time.process_time, number=1, repeat=repeats)) / images
        )
        sizes = SIZES | {"NF": nf, "k": kernel}
        total = formulas.evaluate(formulas.HAND, **sizes).loc["total"]
        rows.append(
            {
                "NF": nf,
                "k": kernel,
                "macs": total["macs"],
                "report_macs": formulas.value_at(formulas.PUBLISHED["macs"], **sizes),
                "weights": total["weights"],
                "prepool_outputs": total["prepool_outputs"],
                "seconds": seconds,
                "images": images,
                "threads": 1,
                "cpu": torch.backends.cpu.get_cpu_capability(),
                "torch": torch.__version__,
            }
        )
    return pd.DataFrame(rows)


def main(what: str) -> None:
    paths.RESULTS.mkdir(parents=True, exist_ok=True)
    if what == "timing":
        file, table = TIMING_FILE, measure_times()
    else:
        file, table = COUNTERS_FILE, measure_counters()
        if file.exists():
            kept = pd.read_csv(file)
            table = pd.concat([kept[~kept["tool"].isin(table["tool"])], table])
        table = table.sort_values(["deconv_factor", "tool", "reports"])
    table.to_csv(file, index=False)
    checksums.record(file)


if __name__ == "__main__":
    if sys.argv[1:] not in (["counters"], ["timing"]):
        sys.exit(__doc__)
    warnings.simplefilter("ignore")  # of the counters, about their own use of torch
    main(sys.argv[1])
