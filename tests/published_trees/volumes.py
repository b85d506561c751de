"""Volumes, and slices of them: MSD, BraTS, KiTS, LGG, LIDC as PNG, ACDC, ADNI, OASIS, nnU-Net."""

from __future__ import annotations

from published_trees import Read, Tree, lines

DECATHLON = "Task01_BrainTumour"
LGG = [f"TCGA_CS_{4941 + n}_199609{n + 10}" for n in range(4)]
ADNI = ("002_S_0295", "002_S_0413", "005_S_0553", "011_S_0002")
OASIS = {"Non Demented": range(1, 7), "Mild Dementia": range(28, 32), "Very mild Dementia": range(60, 64)}
BRATS = "BraTS2020_TrainingData/MICCAI_BraTS2020_TrainingData"

TREES = (
    Tree(
        "Medical Segmentation Decathlon",
        tuple(f"{DECATHLON}/{folder}Tr/BRATS_{n:03}.nii.gz" for folder in ("images", "labels") for n in (1, 2, 3))
        + tuple(f"{DECATHLON}/imagesTs/BRATS_{n:03}.nii.gz" for n in (485, 486)),
        Read(5, masked=3),
        {f"{DECATHLON}/dataset.json": "{}\n"},
    ),
    Tree(
        "nnU-Net (two channels a case)",
        tuple(f"Dataset002_Heart/imagesTr/la_{n:03}_{k:04}.nii.gz" for n in (3, 4, 5) for k in (0, 1))
        + tuple(f"Dataset002_Heart/labelsTr/la_{n:03}.nii.gz" for n in (3, 4, 5)),
        Read(3, patients=3, masked=3),
        {"Dataset002_Heart/dataset.json": "{}\n"},
    ),
    Tree(
        "BraTS 2020 (four modalities a patient)",
        tuple(
            f"{BRATS}/BraTS20_Training_{n:03}/BraTS20_Training_{n:03}_{kind}.nii.gz"
            for n in (1, 2, 3)
            for kind in ("flair", "t1", "t1ce", "t2", "seg")
        ),
        Read(12, patients=3, masked=12),
        {f"{BRATS}/name_mapping.csv": lines("Grade,BraTS_2020_subject_ID", "HGG,BraTS20_Training_001")},
    ),
    Tree(
        "KiTS 2019",
        tuple(f"data/case_{n:05}/{kind}.nii.gz" for n in range(4) for kind in ("imaging", "segmentation")),
        Read(4, patients=4, masked=4),
        {"data/kits.json": "[]\n", "LICENSE": "x\n"},
    ),
    Tree(
        "LGG segmentation (Kaggle)",
        tuple(f"kaggle_3m/{who}/{who}_{n}{end}.tif" for who in LGG for n in (1, 2, 3) for end in ("", "_mask")),
        Read(12, patients=4, masked=12),
        {"kaggle_3m/data.csv": lines("Patient,RNASeqCluster", "TCGA_CS_4941,2"), "kaggle_3m/README.md": "x\n"},
    ),
    Tree(
        "LIDC-IDRI as PNG (four readers' masks a nodule)",
        tuple(
            f"LIDC-IDRI-slices/LIDC-IDRI-{p:04}/nodule-{n}/{folder}/slice-{s}.png"
            for p in range(1, 5)
            for n in (0, 1)
            for folder in ("images", "mask-0", "mask-1", "mask-2", "mask-3")
            for s in (0, 1, 2)
        ),
        Read(24, patients=4, masked=24, mask_classes=("mask-0", "mask-1", "mask-2", "mask-3")),
    ),
    Tree(
        "ACDC",
        tuple(
            f"database/{part}/patient{p:03}/patient{p:03}_{end}.nii.gz"
            for part, people in (("training", (1, 2, 3)), ("testing", (101, 102)))
            for p in people
            for end in ("4d", "frame01", "frame01_gt", "frame12", "frame12_gt")
        ),
        Read(
            15,
            patients=5,
            splits={"train": 9, "test": 6},
            masked=10,
            cells={
                "patient001_frame12.nii.gz": {"mask_path": "database/training/patient001/patient001_frame12_gt.nii.gz"}
            },
        ),
        {f"database/training/patient{p:03}/Info.cfg": "ED: 1\n" for p in (1, 2, 3)},
    ),
    Tree(
        "ADNI (as LONI exports it)",
        tuple(
            f"ADNI/{who}/MP-RAGE/200{visit}-04-18_08_20_30.0/I{13722 + 10 * n + visit}/"
            f"ADNI_{who}_MR_MP-RAGE_br_raw_S13408_I{13722 + 10 * n + visit}.nii"
            for n, who in enumerate(ADNI)
            for visit in (6, 7)
        ),
        Read(8, patients=4),
    ),
    Tree(
        "ADNI, slices divided by diagnosis (Kaggle)",
        tuple(
            f"Alzheimer_s Dataset/{split}/{c}/{n}.jpg"
            for split, k in (("train", 0), ("test", 26))
            for c in ("MildDemented", "ModerateDemented", "NonDemented", "VeryMildDemented")
            for n in range(k, k + 4)
        ),
        Read(
            32,
            dict.fromkeys(("MildDemented", "ModerateDemented", "NonDemented", "VeryMildDemented"), 8),
            0,
            {"train": 16, "test": 16},
        ),
    ),
    Tree(
        "OASIS (Kaggle: slices, subjects in the names)",
        tuple(
            f"Data/{c}/OAS1_{p:04}_MR1_mpr-1_{100 + n}.jpg"
            for c, people in OASIS.items()
            for p in people
            for n in range(3)
        ),
        Read(42, {"Non Demented": 18, "Mild Dementia": 12, "Very mild Dementia": 12}, 14),
    ),
)
