"""The data sets by name.  Other packages add theirs by entry points, `satbench.datasets`."""

from __future__ import annotations

from satbench.core.registry import Entry, Registry

DATASETS = Registry(
    "dataset",
    (
        Entry(
            "fashion-mnist",
            "satbench.data.fashion_mnist:load",
            "28×28 grey photos of clothes, 10 classes; the 10,000 test images ship with satbench",
            "Xiao, Rasul, Vollgraf, 2017, arXiv:1708.07747",
        ),
        Entry(
            "cifar10",
            "satbench.data._cifar:load_cifar10",
            "32×32 colour photos, 10 classes; torchvision's format in the data folder",
            "Krizhevsky, 2009",
        ),
        Entry(
            "cifar100",
            "satbench.data._cifar:load_cifar100",
            "32×32 colour photos, 100 classes; torchvision's format in the data folder",
            "Krizhevsky, 2009",
        ),
        Entry(
            "imagefolder",
            "satbench.data._imagefolder:ImageFolder",
            "imagefolder:PATH[@RULE], a tree PATH/CLASS/IMAGE such as ImageNet's val/; RULE says "
            "what is done to the pixels: resize=256,crop=224 (the usual), none, Res256Crop224, …",
        ),
        Entry(
            "arrays",
            "satbench.data._arrays:Arrays",
            "arrays:FILE, images and labels in FILE.npz, FILE.pt or X.npy,Y.npy: --data FILE",
        ),
        Entry(
            "hf",
            "satbench.data._hugging_face:HuggingFaceData",
            "hf:ORG/NAME[@RULE], a data set of the Hugging Face Hub, or a folder in its formats",
            "https://huggingface.co/datasets",
        ),
    ),
)

AT_A_PATH = ("imagefolder", "arrays", "hf")
"""Data sets whose names continue with a path."""
