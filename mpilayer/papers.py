"""What the two papers print, to stand beside our numbers."""

from collections.abc import Mapping

SANTARA = "Santara et al. 2016"
"""Full MNIST, Table 1's layers, on 4 threads."""

SANTARA_LAYERS = (784, 1000, 500, 250, 30)
"""Table 1: units of the encoder, the data first; the decoder is its mirror image."""

SANTARA_EPOCHS = (20, 20, 20, 20)
SANTARA_EXTRA = (0, 5, 20, 40)
"""Stipulated epochs of each layer, and extra ones for every newer input; §5.2."""

SANTARA_ERRORS = {"greedy": (8.00, 8.19), "synchronized (async)": (8.39, 8.57)}
"""Table 2: errors of the fine-tuned stack, training and test images."""

SANTARA_SECONDS = {"greedy": 11_683, "synchronized (async)": 6_551}
"""Table 3: seconds of pre-training."""

LAHIRI = "Lahiri, Pasari, Prochnow 2010"
LAHIRI_EVALUATIONS = 500
LAHIRI_COLUMNS = 64
"""Patches of 8 × 8."""

LAHIRI_EXACT = {"exact_slower_by_seconds": [8, 12], "of_seconds": [350, 650]}
"""What the exact mode took more than the average."""

QJAM = "qjam's own report (Batiz-Benet, Slack, Sparks, Yahya), not from that paper"
"""Where the cluster's seconds come from; the code is at github.com/ali01/qjam."""

LAHIRI_SECONDS: Mapping[str, Mapping[int, Mapping[int, float]]] = {
    "desktop": {
        1_000: {1: 9, 2: 10, 4: 13, 8: 16},
        10_000: {1: 64, 2: 57, 4: 64, 8: 75},
        100_000: {1: 650, 2: 440, 4: 370, 8: 350},
        1_000_000: {1: 6431, 2: 4049, 4: 3425, 8: 3360},
    },
    "qjam cluster": {
        1_000: {1: 76, 2: 92, 4: 137, 8: 275, 16: 544},
        10_000: {1: 370, 2: 170, 4: 173, 8: 270, 16: 529},
        100_000: {1: 5030, 2: 2350, 4: 1253, 8: 914, 16: 703},
    },
}
"""Seconds of ``LAHIRI_EVALUATIONS`` evaluations by L-BFGS: machine to rows to workers.
The desktop's are the paper's (Figure 3.3.1), the cluster's ``QJAM``'s (3.4.1)."""
