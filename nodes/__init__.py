"""Node classes by id. Our own stand here as literals, which the Manager's scan of the source finds; it takes those of the
older packs from node_list.json."""

from .. import host
from ..host import folders
from . import compat, doctor
from .apply import ImagePromptApplyNode
from .auto import ImagePromptAutoLoaderNode
from .faces import ImagePromptFacesNode
from .heatmap import ImagePromptHeatMapNode, ImagePromptWatchNode
from .loaders import ImagePromptLoaderNode, ImagePromptLoadNode, ImagePromptSaveNode
from .metrics import ImagePromptScoreNode
from .prompts import ImagePromptCombineNode, ImagePromptEncodeFaceNode, ImagePromptEncodeNode
from .regions import ImagePromptRegionsNode
from .simple import ImagePromptNode
from .sweep import ImagePromptSheetNode, ImagePromptSweepNode
from .training import ImagePromptExportNode, ImagePromptTrainNode
from .weights import ImagePromptLayerWeightsNode

folders.register_folders()
host.answer_page(doctor.ROUTE, doctor.answer)

NODE_CLASS_MAPPINGS = {
    "ImagePrompt": ImagePromptNode,
    "ImagePromptLoader": ImagePromptLoaderNode,
    "ImagePromptAutoLoader": ImagePromptAutoLoaderNode,
    "ImagePromptEncode": ImagePromptEncodeNode,
    "ImagePromptEncodeFace": ImagePromptEncodeFaceNode,
    "ImagePromptCombine": ImagePromptCombineNode,
    "ImagePromptApply": ImagePromptApplyNode,
    "ImagePromptRegions": ImagePromptRegionsNode,
    "ImagePromptLayerWeights": ImagePromptLayerWeightsNode,
    "ImagePromptFaces": ImagePromptFacesNode,
    "ImagePromptWatch": ImagePromptWatchNode,
    "ImagePromptHeatMap": ImagePromptHeatMapNode,
    "ImagePromptSweep": ImagePromptSweepNode,
    "ImagePromptSheet": ImagePromptSheetNode,
    "ImagePromptTrain": ImagePromptTrainNode,
    "ImagePromptExport": ImagePromptExportNode,
    "ImagePromptScore": ImagePromptScoreNode,
    "ImagePromptDoctor": doctor.ImagePromptDoctorNode,
    "ImagePromptSave": ImagePromptSaveNode,
    "ImagePromptLoad": ImagePromptLoadNode,
}
NODE_CLASS_MAPPINGS.update(compat.register())
NODE_DISPLAY_NAME_MAPPINGS = {node_id: node.TITLE for node_id, node in NODE_CLASS_MAPPINGS.items()}
