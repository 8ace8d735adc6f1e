"""The names of activations and architectures."""

from __future__ import annotations

from satbench.core.registry import Entry, Registry

ACTIVATIONS = Registry(
    "activation",
    (
        Entry("relu", "satbench.networks.activations:ReLU", "max(0, x): the baseline"),
        Entry(
            "silu",
            "satbench.networks.activations:SiLU",
            "x σ(x), also called Swish",
            "Xie et al., 2020, arXiv:2006.14536, section 4.1",
        ),
        Entry(
            "gelu",
            "satbench.networks.activations:GELU",
            "x Φ(x), in the tanh form of the paper's code",
            "Xie et al., 2020, arXiv:2006.14536, section 4.1",
        ),
        Entry(
            "parametric-softplus",
            "satbench.networks.activations:ParametricSoftplus",
            "(1/α) log(1 + exp(αx)), α = 10",
            "Xie et al., 2020, arXiv:2006.14536, section 3.2",
        ),
        Entry(
            "softplus",
            "satbench.networks.activations:Softplus",
            "log(1 + exp(x))",
            "Xie et al., 2020, arXiv:2006.14536, section 4.1",
        ),
        Entry(
            "elu",
            "satbench.networks.activations:ELU",
            "x, and α (exp(x) - 1) below 0; smooth only for α = 1",
            "Clevert et al., 2015, arXiv:1511.07289",
        ),
        Entry(
            "celu",
            "satbench.networks.activations:CELU",
            "x, and α (exp(x/α) - 1) below 0; smooth for every α",
            "Barron, 2017, arXiv:1704.07483",
        ),
        Entry(
            "smooth-relu",
            "satbench.networks.activations:SmoothReLU",
            "x - log(1 + αx)/α, and 0 below 0; α trained from 400 on",
            "Xie et al., 2020, arXiv:2006.14536, section 4.2",
        ),
        Entry(
            "mish",
            "satbench.networks.activations:Mish",
            "x tanh(log(1 + exp(x)))",
            "Misra, 2019, arXiv:1908.08681",
        ),
        Entry(
            "leaky-relu",
            "satbench.networks.activations:LeakyReLU",
            "x, and 0.2 x below 0: a control that is not smooth",
            "Singla et al., 2021, arXiv:2102.07861",
        ),
        Entry(
            "pssilu",
            "satbench.networks.activations:PSSiLU",
            "x (σ(|a|x) - |b|) / (1 - |b|); a and b trained, shared by all sites",
            "Dai et al., 2021, arXiv:2110.05626",
        ),
    ),
)

ARCHITECTURES = Registry(
    "architecture",
    (
        Entry(
            "tiny",
            "satbench.networks.tiny:Tiny",
            "four convolutions for small grey images; at width 8: 15,682 parameters, 0.94 MMAC",
        ),
        Entry(
            "small",
            "satbench.networks.small:Small",
            "a residual net for small grey images; by default 272,442 parameters, 8.57 MMAC",
        ),
        Entry(
            "resnet",
            "satbench.networks.resnet:ResNet",
            "ResNet-18, 34, 50, 101, 152 for ImageNet; at depth 50: 25.6 M parameters, 4.1 GMAC",
            "He et al., 2016, arXiv:1512.03385",
        ),
        Entry(
            "resnext",
            "satbench.networks.resnet:ResNeXt",
            "ResNeXt-50, 101, 152 for ImageNet; at 50 32x4d: 25.0 M parameters, 4.2 GMAC",
            "Xie et al., 2017, arXiv:1611.05431",
        ),
        Entry(
            "efficientnet",
            "satbench.networks.efficientnet:EfficientNet",
            "EfficientNet-B0…B7 and L1 for ImageNet; B0: 5.3 M parameters, 0.39 GMAC",
            "Tan & Le, 2019, arXiv:1905.11946",
        ),
        Entry(
            "cifar-resnet",
            "satbench.networks.cifar_resnet:CifarResNet",
            "ResNet-18, 34, 50 with a 3×3 stem for 32×32 images; at depth 18: 11.2 M parameters",
            "He et al., 2016, arXiv:1512.03385",
        ),
        Entry(
            "he-cifar-resnet",
            "satbench.networks.cifar_resnet:HeCifarResNet",
            "ResNet-20, 32, 44, 56, 110 for 32×32 images; at depth 20: 0.27 M parameters",
            "He et al., 2016, arXiv:1512.03385, section 4.2",
        ),
        Entry(
            "preact-resnet",
            "satbench.networks.preact_resnet:PreActResNet",
            "PreAct-ResNet-18, 34 for 32×32 images; at depth 18: 11.2 M parameters, 0.56 GMAC",
            "He et al., 2016, arXiv:1603.05027; Rice et al., 2020, arXiv:2002.11569",
        ),
        Entry(
            "wide-resnet",
            "satbench.networks.wide_resnet:WideResNet",
            "WRN-28-10, 34-10, 70-16 for 32×32 images; at 28-10: 36.5 M parameters, 5.2 GMAC",
            "Zagoruyko & Komodakis, 2016, arXiv:1605.07146",
        ),
    ),
)
