"""Defenses: `names()`, `get(name)`, `create(name, **params)`."""

from __future__ import annotations

from iqa_robust.defenses.naming import DefenseRegistry

registry = DefenseRegistry(
    "defense",
    base="iqa_robust.defenses.base:Defense",
    builtins={
        "art/feature-squeezing": "iqa_robust.defenses.adapters.art:FeatureSqueezing",
        "art/gaussian-augmentation": "iqa_robust.defenses.adapters.art:GaussianAugmentation",
        "art/jpeg-compression": "iqa_robust.defenses.adapters.art:JpegCompression",
        "art/spatial-smoothing": "iqa_robust.defenses.adapters.art:SpatialSmoothing",
        "art/total-var-min": "iqa_robust.defenses.adapters.art:TotalVarMin",
        "bilateral": "iqa_robust.defenses.filtering.bilateral:Bilateral",
        "bit-depth": "iqa_robust.defenses.quantization.bit_depth:BitDepth",
        "canary-batch": "iqa_robust.defenses.canaries.scores:BatchMean",
        "canary-collapsed": "iqa_robust.defenses.canaries.scores:Collapsed",
        "canary-quantizer": "iqa_robust.defenses.canaries.images:SilentQuantizer",
        "canary-rank": "iqa_robust.defenses.canaries.scores:FrozenRank",
        "canary-saturated": "iqa_robust.defenses.canaries.scores:Saturated",
        "canary-shattered": "iqa_robust.defenses.canaries.images:Shattered",
        "canary-single-draw": "iqa_robust.defenses.canaries.images:SingleDraw",
        "canary-surrogate": "iqa_robust.defenses.canaries.images:WrongSurrogate",
        "canary-unrepeatable": "iqa_robust.defenses.canaries.scores:Unrepeatable",
        "color-quantization": "iqa_robust.defenses.quantization.color_quantization:ColorQuantization",
        "denoised-median-smoothing": "iqa_robust.defenses.certified.median_smoothing:DenoisedMedianSmoothing",
        "diffpure": "iqa_robust.defenses.learned.diffpure:DiffPure",
        "dncnn": "iqa_robust.defenses.learned.dncnn:DnCNN",
        "fcn": "iqa_robust.defenses.learned.fcn:FCN",
        "flip": "iqa_robust.defenses.geometry.flip:Flip",
        "gaussian": "iqa_robust.defenses.filtering.gaussian:Gaussian",
        "jpeg": "iqa_robust.defenses.codec.jpeg:JPEG",
        "jpeg2000": "iqa_robust.defenses.codec.jpeg2000:JPEG2000",
        "median": "iqa_robust.defenses.filtering.median:Median",
        "median-smoothing": "iqa_robust.defenses.certified.median_smoothing:MedianSmoothing",
        "mid-band": "iqa_robust.defenses.filtering.mid_band:MidBand",
        "non-local-means": "iqa_robust.defenses.filtering.non_local_means:NonLocalMeans",
        "random-crop": "iqa_robust.defenses.geometry.random_crop:RandomCrop",
        "random-noise": "iqa_robust.defenses.noise.random_noise:RandomNoise",
        "randomized-smoothing": "iqa_robust.defenses.certified.randomized_smoothing:RandomizedSmoothing",
        "resize": "iqa_robust.defenses.geometry.resize:Resize",
        "rotate": "iqa_robust.defenses.geometry.rotate:Rotate",
        "super-resolution": "iqa_robust.defenses.learned.super_resolution:SuperResolution",
        "total-variation": "iqa_robust.defenses.filtering.total_variation:TotalVariation",
        "unet": "iqa_robust.defenses.learned.unet:UNet",
        "unsharp": "iqa_robust.defenses.filtering.unsharp:Unsharp",
        "upscale": "iqa_robust.defenses.geometry.resize:Upscale",
        "wavelet": "iqa_robust.defenses.filtering.wavelet:Wavelet",
        "webp": "iqa_robust.defenses.codec.webp:WebP",
    },
)
names, get, create = registry.names, registry.get, registry.create
