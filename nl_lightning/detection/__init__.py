"""Tables 5 and 6: Mask R-CNN with non-local blocks on COCO. Nothing else of the package imports this one.

>>> from nl_lightning.detection import CocoData, Detector, Detections, bootstrap

It needs the extra ``[detection]``.
"""

from nl_lightning.errors import from_extra

with from_extra("detection"):
    import pycocotools  # noqa: F401

from nl_lightning.detection.coco import CocoData as CocoData
from nl_lightning.detection.detector import Detector as Detector
from nl_lightning.detection.network import Size as Size
from nl_lightning.detection.network import detector_network as detector_network
from nl_lightning.detection.precision import AveragePrecision as AveragePrecision
from nl_lightning.detection.precision import Detections as Detections
from nl_lightning.detection.precision import average_precision as average_precision
from nl_lightning.detection.precision import bootstrap as bootstrap
from nl_lightning.detection.precision import contributions as contributions
from nl_lightning.detection.tags import Tags as Tags
