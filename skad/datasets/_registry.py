"""The table of data sets. A new one is a row here and a function in ``_loaders.py``."""

from __future__ import annotations

from skad.datasets._csv_files import APTOS, ISIC2018, VISA
from skad.datasets._dataset import Dataset
from skad.datasets._folders import BTAD, FOLDER, LOCO, MVTEC, OCT2017
from skad.datasets._surfaces import KOLEKTOR_SDD, KOLEKTOR_SDD2, MAGNETIC_TILE

_BY_NC_SA = "CC BY-NC-SA 4.0, not for commercial use"
_ROWS = (
    Dataset(
        name="mvtec_ad",
        title="MVTec AD",
        layout=MVTEC,
        owner="MVTec Software GmbH",
        licence=_BY_NC_SA,
        url="https://www.mvtec.com/company/research/datasets/mvtec-ad",
        reference="""\
P. Bergmann, K. Batzner, M. Fauser, D. Sattlegger, C. Steger, "The MVTec Anomaly Detection Dataset",
IJCV 129, 2021.""",
        official_categories=(
            *("bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut"),
            *("pill", "screw", "tile", "toothbrush", "transistor", "wood", "zipper"),
        ),
        example=("mvtec_anomaly_detection", "bottle"),
        example_sizes=(209, 83),
    ),
    Dataset(
        name="mvtec_loco",
        title="MVTec LOCO AD",
        layout=LOCO,
        owner="MVTec Software GmbH",
        licence=_BY_NC_SA,
        url="https://www.mvtec.com/company/research/datasets/mvtec-loco",
        reference="""\
P. Bergmann, K. Batzner, M. Fauser, D. Sattlegger, C. Steger, "Beyond Dents and Scratches: Logical
Constraints in Unsupervised Anomaly Detection and Localization", IJCV 130, 2022.""",
        official_categories=(
            *("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors"),
        ),
        example=("mvtec_loco_anomaly_detection", "pushpins"),
    ),
    Dataset(
        name="visa",
        title="VisA",
        layout=VISA,
        owner="Amazon",
        licence="CC BY 4.0",
        url="https://github.com/amazon-science/spot-diff",
        reference="""\
Y. Zou, J. Jeong, L. Pemula, D. Zhang, O. Dabeer, "SPot-the-Difference Self-Supervised Pre-training
for Anomaly Detection and Segmentation", ECCV 2022.""",
        official_categories=(
            *("candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2"),
            *("pcb1", "pcb2", "pcb3", "pcb4", "pipe_fryum"),
        ),
        example=("VisA", "candle"),
        example_sizes=(900, 200),
    ),
    Dataset(
        name="btad",
        title="BTAD",
        layout=BTAD,
        owner="P. Mishra et al. (beanTech, University of Udine)",
        licence="CC BY-SA 4.0",
        url="https://github.com/pankajmishra000/VT-ADL",
        reference="""\
P. Mishra, R. Verk, D. Fornasier, C. Piciarelli, G. L. Foresti, "VT-ADL: A Vision Transformer Network
for Image Anomaly Detection and Localization", ISIE 2021.""",
        official_categories=("01", "02", "03"),
        example=("BTech_Dataset_transformed", "01"),
    ),
    Dataset(
        name="mpdd",
        title="MPDD",
        layout=MVTEC,
        owner="S. Jezek et al. (Brno University of Technology)",
        licence="none stated",
        url="https://github.com/stepanje/MPDD",
        reference="""\
S. Jezek, M. Jonak, R. Burget, P. Dvorak, M. Skotak, "Deep learning-based defect detection of metal
parts: evaluating current methods in complex conditions", ICUMT 2021.""",
        official_categories=(
            *("bracket_black", "bracket_brown", "bracket_white"),
            *("connector", "metal_plate", "tubes"),
        ),
        example=("MPDD", "bracket_black"),
    ),
    Dataset(
        name="magnetic_tile",
        title="Magnetic Tile",
        layout=MAGNETIC_TILE,
        owner="Y. Huang et al.",
        licence="none stated; use is welcome, with a citation",
        url="https://github.com/abin24/Magnetic-tile-defect-datasets.",  # the full stop belongs to it
        reference="""\
Y. Huang, C. Qiu, K. Yuan, "Surface defect saliency of magnetic tile", The Visual Computer 36, 2020.""",
        example=("Magnetic-tile-defect-datasets.",),
    ),
    Dataset(
        name="kolektor_sdd",
        title="KolektorSDD",
        layout=KOLEKTOR_SDD,
        owner="ViCoS (University of Ljubljana)",
        licence=_BY_NC_SA,
        url="https://www.vicos.si/resources/kolektorsdd/",
        reference="""\
D. Tabernik, S. Sela, J. Skvarc, D. Skocaj, "Segmentation-based deep-learning approach for
surface-defect detection", Journal of Intelligent Manufacturing 31, 2020.""",
        example=("KolektorSDD",),
    ),
    Dataset(
        name="kolektor_sdd2",
        title="KolektorSDD2",
        layout=KOLEKTOR_SDD2,
        owner="ViCoS (University of Ljubljana)",
        licence=_BY_NC_SA,
        url="https://www.vicos.si/resources/kolektorsdd2/",
        reference="""\
J. Bozic, D. Tabernik, D. Skocaj, "Mixed supervision for surface-defect detection", Computers in
Industry 2021.""",
        example=("KolektorSDD2",),
    ),
    Dataset(
        name="aptos",
        title="APTOS 2019",
        layout=APTOS,
        owner="the Asia Pacific Tele-Ophthalmology Society",
        licence="the rules of the competition",
        url="https://www.kaggle.com/competitions/aptos2019-blindness-detection/data",
        reference="""\
Asia Pacific Tele-Ophthalmology Society, "APTOS 2019 Blindness Detection", 2019; J. Guo et al.,
"ReContrast: Domain-Specific Anomaly Detection via Contrastive Reconstruction", NeurIPS 2023,
appendix B.""",
        example=("APTOS/original",),
        example_sizes=(1000, 2662),
    ),
    Dataset(
        name="oct2017",
        title="OCT2017",
        layout=OCT2017,
        owner="D. Kermany et al.",
        licence="CC BY 4.0, as others report it",
        url="https://data.mendeley.com/datasets/rscbjbr9sj/3",
        reference="""\
D. Kermany et al., "Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep
Learning", Cell 172, 2018.""",
        example=("OCT2017",),
    ),
    Dataset(
        name="isic2018",
        title="ISIC 2018, task 3",
        layout=ISIC2018,
        owner="the International Skin Imaging Collaboration",
        licence="CC BY-NC, not for commercial use, as others report it",
        url="https://challenge.isic-archive.com/data/#2018",
        reference="""\
N. Codella et al., "Skin Lesion Analysis Toward Melanoma Detection 2018", arXiv:1902.03368, 2019;
P. Tschandl, C. Rosendahl, H. Kittler, "The HAM10000 dataset", Scientific Data 5, 2018.""",
        example=("ISIC2018/original",),
        example_sizes=(6705, 193),
    ),
    Dataset(
        name="folder",
        title="Images in MVTec layout",
        layout=FOLDER,
        example=("parts/bottle",),
    ),
)
DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in _ROWS}
"""Every data set that skad reads, by name."""
