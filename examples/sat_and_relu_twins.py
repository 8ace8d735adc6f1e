"""Train a ReLU and a SiLU network by adversarial training, and compare them.

The two differ only in the activation: they start from the same weights and see the same images in
the same order.  The images are the test images of Fashion-MNIST, which come with satbench: the
first 4,000 for training, the last 300 for evaluation.  That is enough for an example, but not for
a claim, which needs several seeds, as in `satbench study activations`.  Takes about a minute.
"""

import copy

import torch
from torch import nn

import satbench
from satbench.data import load_dataset


def network() -> nn.Module:
    """Return a small ReLU network with random weights."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(16 * 7 * 7, 10)),
    )


def main(images: int = 4000, epochs: int = 4, last: int = 300) -> dict[str, object]:
    """Train, evaluate and print; return the records by activation."""
    data = load_dataset("fashion-mnist", "test")
    x, y = torch.tensor(data.images).float() / 255, torch.tensor(data.labels)
    relu = network()
    silu = copy.deepcopy(relu)
    satbench.swap_activation(silu, "silu")

    records = {}
    for name, net in (("relu", relu), ("silu", silu)):
        trained = satbench.train(
            net, (x[:images], y[:images]), "fmnist-sat", name=name, epochs=epochs, quiet=True
        )
        records[name] = satbench.evaluate(
            trained.model, x[-last:], y[-last:], attacks=["pgd-50", "fast"], eps=0.1, name=name
        )
        record = records[name]
        print(f"{name}: clean {record.clean_correct}, robust {record.surviving()} of {record.n}")

    print(satbench.compare(records["silu"], records["relu"]))
    return records


if __name__ == "__main__":
    main()
