"""Tissue, cells, endoscopy, ultrasound, MedMNIST: BreakHis, PCam, CAMELYON17, C-NMC, Kvasir, CVC-ClinicDB, BUSI."""

from __future__ import annotations

from published_trees import Read, Tree, lines

KVASIR = (
    *("dyed-lifted-polyps", "dyed-resection-margins", "esophagitis", "normal-cecum", "normal-pylorus"),
    *("normal-z-line", "polyps", "ulcerative-colitis"),
)
BUSI = [(c, n) for c in ("benign", "malignant", "normal") for n in (1, 2, 3)]
BUSI_READ = Read(9, dict.fromkeys(("benign", "malignant", "normal"), 3), masked=9)
BREAKHIS = [(k, t, n) for k, t in (("benign", "adenosis"), ("malignant", "ductal_carcinoma")) for n in range(6)]
BREAKHIS_CODE = {"adenosis": "B_A", "ductal_carcinoma": "M_DC"}
CAMELYON = [(p, n, x) for p in (4, 10) for n in (0, 4) for x in (3328, 3392, 3456)]

TREES = (
    Tree(
        "BUSI",
        tuple(
            f"Dataset_BUSI_with_GT/{c}/{c} ({n}){end}.png"
            for c, n in BUSI
            for end in ("", "_mask", *(["_mask_1"] if n == 3 else []))
        ),
        BUSI_READ,
    ),
    Tree(
        "BUSI, a copy with a folder of images and one of masks a class",
        tuple(f"BUSI/{c}/{kind}/{c} ({n}).png" for c, n in BUSI for kind in ("images", "masks")),
        BUSI_READ,
    ),
    Tree(
        "BUSI, a copy with mask (several masks an image)",
        tuple(f"{c}/image/{c} ({n}).png" for c, n in BUSI)
        + tuple(f"{c}/mask/{c} ({n})_mask{end}.png" for c, n in BUSI for end in ("", *(["_1"] if n == 3 else []))),
        BUSI_READ,
    ),
    Tree(
        "BUSI, a copy that is divided",
        tuple(
            f"{split}/{c}/{c} ({n}){end}.png"
            for c, n in BUSI
            for split in [("train", "val", "test")[n - 1]]
            for end in ("", "_mask")
        ),
        Read(9, BUSI_READ.classes, 0, {"train": 3, "val": 3, "test": 3}, 9),
    ),
    Tree(
        "BreakHis",
        tuple(
            f"BreaKHis_v1/histology_slides/breast/{k}/SOB/{t}/SOB_{BREAKHIS_CODE[t]}_14-{22549 + n}AB/{m}X/"
            f"SOB_{BREAKHIS_CODE[t]}-14-{22549 + n}AB-{m}-{i:03}.png"
            for k, t, n in BREAKHIS
            for m in (40, 100)
            for i in (1, 2)
        ),
        Read(48, {"benign": 24, "malignant": 24}, 12),
        {"BreaKHis_v1/histology_slides/breast/README.txt": "x\n"},
    ),
    Tree(
        "PatchCamelyon, Kaggle's copy",
        tuple(f"train/{n:040x}.tif" for n in range(10)) + tuple(f"test/{n:040x}.tif" for n in (99, 100)),
        Read(12, {"0": 5, "1": 5}, 0, {"train": 10}),
        {
            "train_labels.csv": lines("id,label", *(f"{n:040x},{n % 2}" for n in range(10))),
            "sample_submission.csv": lines("id,label", *(f"{n:040x},0" for n in (99, 100))),
        },
    ),
    Tree(
        "CAMELYON17 patches (WILDS): folders of a patient's node",
        tuple(
            f"patches/patient_{p:03}_node_{n}/patch_patient_{p:03}_node_{n}_x_{x}_y_21792.png" for p, n, x in CAMELYON
        ),
        Read(12, patients=2, cells={"patient_010_node_4_x_3328_y_21792.png": {"patient_id": "patient_010"}}),
        {
            "metadata.csv": lines(
                ",patient,node,x_coord,y_coord,tumor,slide,center,split",
                *(f"{i},{p:03},{n},{x},21792,{i % 2},{n},0,0" for i, (p, n, x) in enumerate(CAMELYON)),
            )
        },
    ),
    Tree(
        "Kvasir",
        tuple(f"kvasir-dataset-v2/{c}/{n:08x}-97ff-4e5a.jpg" for c in KVASIR for n in (7, 8, 9)),
        Read(24, dict.fromkeys(KVASIR, 3)),
    ),
    Tree(
        "Kvasir-SEG",
        tuple(f"Kvasir-SEG/{kind}/cju0qkwl{n}.jpg" for kind in ("images", "masks") for n in range(4)),
        Read(4, masked=4),
        {"Kvasir-SEG/kavsir_bboxes.json": "{}\n"},
    ),
    Tree(
        "CVC-ClinicDB",
        tuple(f"CVC-ClinicDB/{kind}/{n}.tif" for kind in ("Original", "Ground Truth") for n in range(1, 6)),
        Read(5, masked=5),
    ),
    Tree(
        "C-NMC 2019 (folds, subjects in the names)",
        tuple(
            f"C-NMC_training_data/fold_{f}/{c}/UID_{h}{3 * f + p}_{n}_1_{c}.bmp"
            for f in range(3)
            for c, h in (("all", ""), ("hem", "H"))
            for p in (1, 2)
            for n in (1, 2, 3)
        ),
        Read(36, {"all": 18, "hem": 18}, cells={"UID_H4_1_1_hem.bmp": {"fold": "1"}}),
    ),
)
