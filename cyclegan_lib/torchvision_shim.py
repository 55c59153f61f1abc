"""Make `import torchvision` work where its build and torch's differ.

Package registries carry torchvision for CUDA alone. Beside a CPU build of torch it stops at
import with "operator torchvision::nms does not exist", for the sake of two operators that
nothing here uses. Declaring them lets the rest load (not its decoders: pictures are read with
Pillow). They are declared only after that error: beside a torchvision that has them, a second
declaration would abort the process.
"""

import sys

import torch

try:
    import torchvision  # noqa: F401
except RuntimeError as error:
    if "torchvision::" not in str(error):
        raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    _library = torch.library.Library("torchvision", "FRAGMENT")  # must stay alive
    _library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # noqa: F401
