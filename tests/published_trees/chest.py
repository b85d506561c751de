"""Radiographs and mammograms: NIH, CheXpert, MIMIC-CXR-JPG, RSNA, VinDr, COVID sets, Kermany, Montgomery, Shenzhen,
MURA, DDSM, MIAS, INbreast."""

from __future__ import annotations

from published_trees import Read, Tree, lines

NIH = [(p, f) for p in (1, 2, 3, 4, 5, 6) for f in (0, 1)]
NIH_LABELS = ("Cardiomegaly", "Cardiomegaly|Emphysema", "No Finding", "Emphysema", "No Finding", "Cardiomegaly")
CHEXPERT = "No Finding,Cardiomegaly,Lung Opacity,Edema,Support Devices"
CHEXPERT_ROWS = (
    ("train/patient00001/study1/view1_frontal", "1.0,,,,1.0"),
    ("train/patient00002/study2/view1_frontal", ",,1.0,-1.0,"),
    ("train/patient00002/study1/view1_frontal", ",,0.0,1.0,"),
    ("train/patient00002/study1/view2_lateral", ",,0.0,1.0,"),
    ("train/patient00003/study1/view1_frontal", ",1.0,,0.0,"),
    ("valid/patient64541/study1/view1_frontal", "0.0,1.0,1.0,0.0,0.0"),
    ("valid/patient64542/study1/view1_frontal", "0.0,0.0,0.0,0.0,1.0"),
)
UUID = "0004cfab-14fd-4e49-80ba-63a80b6bdd{:02x}"
MIMIC = [(p, 50414267 + 10 * p + s) for p in (10000032, 10000764, 11000183, 12000898) for s in (0, 1)]
MURA = tuple(
    f"MURA-v1.1/{split}/{part}/patient{p:05}/study1_{'positive' if p % 2 else 'negative'}/image{n}.png"
    for split, people in (("train", (11, 12, 13, 14)), ("valid", (11185, 11186)))
    for part in ("XR_ELBOW", "XR_HAND")
    for p in people
    for n in (1, 2)
)
INBREAST = [(20586908 + 26 * n, f"{n // 2:016x}", "RL"[n % 2]) for n in range(6)]

PN = ("positive", "negative")
HEALTHY = ("Normal", "No Lung Opacity / Not Normal")

TREES = (
    Tree(
        "NIH ChestX-ray14",
        tuple(f"images_{1 + p // 4:03}/images/{p:08}_{f:03}.png" for p, f in NIH),
        Read(
            12,
            {"Cardiomegaly": 6, "Emphysema": 4},
            6,
            {"test": 4},
            cells={"00000001_001.png": {"label": "Cardiomegaly;Emphysema", "patient_id": "1"}},
        ),
        {
            "Data_Entry_2017_v2020.csv": lines(
                "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
                "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],",
                *(
                    f"{p:08}_{f:03}.png,{NIH_LABELS[n % 6]},{f},{p},57,M,PA,2682,2749,0.143,0.143,"
                    for n, (p, f) in enumerate(NIH)
                ),
            ),
            "BBox_List_2017.csv": lines(
                "Image Index,Finding Label,Bbox [x,y,w,h],,,", "00000001_000.png,Cardiomegaly,225.0,547.0,86.7,79.1"
            ),
            "train_val_list.txt": lines(*(f"{p:08}_{f:03}.png" for p, f in NIH[:8])),
            "test_list.txt": lines(*(f"{p:08}_{f:03}.png" for p, f in NIH[8:])),
        },
    ),
    Tree(
        "CheXpert (one column per finding: 1, 0, -1, empty)",
        tuple(f"CheXpert-v1.0-small/{path}.jpg" for path, _ in CHEXPERT_ROWS),
        Read(
            7,
            {"No Finding": 1, "Cardiomegaly": 2, "Lung Opacity": 2, "Edema": 2, "Support Devices": 2},
            5,
            {"train": 5, "val": 2},
            cells={
                "patient64542/study1/view1_frontal.jpg": {"label": "Support Devices"},
                "patient00002/study2/view1_frontal.jpg": {
                    "label": "?Cardiomegaly;?Edema;?No Finding;?Support Devices;Lung Opacity"
                },
            },
        ),
        {
            f"CheXpert-v1.0-small/{name}.csv": lines(
                f"Path,Sex,Age,Frontal/Lateral,AP/PA,{CHEXPERT}",
                *(
                    f"CheXpert-v1.0-small/{path}.jpg,Female,68,{'Lateral' if 'lat' in path else 'Frontal'},AP,{cells}"
                    for path, cells in CHEXPERT_ROWS
                    if path.startswith(name)
                ),
            )
            for name in ("train", "valid")
        },
    ),
    Tree(
        "MIMIC-CXR-JPG (labels of a study, by the number of its folder; tables as published, gzipped)",
        tuple(f"files/p{str(p)[:2]}/p{p}/s{s}/{s:08x}-{n}.jpg" for p, s in MIMIC for n in (1, 2)),
        Read(
            16,
            {"Atelectasis": 6, "Edema": 6, "No Finding": 4},
            4,
            {"train": 8, "val": 4, "test": 4},
            cells={
                f"s{MIMIC[1][1]}/{MIMIC[1][1]:08x}-2.jpg": {"label": "?Atelectasis;?No Finding;Edema", "split": "train"}
            },
        ),
        {
            "mimic-cxr-2.0.0-chexpert.csv.gz": lines(
                "subject_id,study_id,Atelectasis,Edema,No Finding",
                *(f"{p},{s},{('1.0,0.0,', '-1.0,1.0,', ',,1.0')[k % 3]}" for k, (p, s) in enumerate(MIMIC)),
            ),
            "mimic-cxr-2.0.0-split.csv.gz": lines(
                "dicom_id,study_id,subject_id,split",
                *(
                    f"{s:08x}-{n},{s},{p},{('train', 'train', 'validate', 'test')[k // 2]}"
                    for k, (p, s) in enumerate(MIMIC)
                    for n in (1, 2)
                ),
            ),
        },
    ),
    Tree(
        "RSNA pneumonia (a row a box, two tables of labels, sample submission)",
        tuple(f"stage_2_train_images/{UUID.format(n)}.dcm" for n in range(8))
        + tuple(f"stage_2_test_images/{UUID.format(n)}.dcm" for n in (200, 201)),
        Read(10, {"0": 4, "1": 4}, 10, {"train": 8}),
        {
            "stage_2_train_labels.csv": lines(
                "patientId,x,y,width,height,Target",
                *(f"{UUID.format(n)},,,,,0" for n in range(0, 8, 2)),
                *(f"{UUID.format(n)},{x},152.0,213.0,379.0,1" for n in range(1, 8, 2) for x in (264.0, 562.0)),
            ),
            "stage_2_detailed_class_info.csv": lines(
                "patientId,class",
                *(f"{UUID.format(n)},{'Lung Opacity' if n % 2 else HEALTHY[n // 4]}" for n in range(8)),
            ),
            "stage_2_sample_submission.csv": lines(
                "patientId,PredictionString", *(f"{UUID.format(n)},0.5 0 0 100 100" for n in (200, 201))
            ),
        },
        refused="Target",
        options={"label_column": "Target"},
    ),
    Tree(
        "VinDr-CXR (three readers an image, who differ: the majority counts)",
        tuple(f"train/{n:032x}.dicom" for n in range(5)) + tuple(f"test/{n:032x}.dicom" for n in range(50, 53)),
        Read(8, {"Atelectasis": 5, "No finding": 3}, splits={"train": 5, "test": 3}),
        {
            "annotations/image_labels_train.csv": lines(
                "image_id,rad_id,Aortic enlargement,Atelectasis,No finding",
                *(
                    f"{n:032x},R{r},{int(n % 2 and r == 9)},{int(n % 2)},{int(not n % 2)}"
                    for n in range(5)
                    for r in (8, 9, 10)
                ),
            ),
            "annotations/image_labels_test.csv": lines(
                "image_id,Aortic enlargement,Atelectasis,No finding", *(f"{n:032x},0,1,0" for n in range(50, 53))
            ),
        },
        refused="annotations/image_labels_train.csv",
        options={"label_column": "Aortic enlargement;Atelectasis;No finding"},
    ),
    Tree(
        "COVID-19 radiography database",
        tuple(
            f"COVID-19_Radiography_Dataset/{c}/{kind}/{c}-{n}.png"
            for c in ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
            for kind in ("images", "masks")
            for n in (1, 2, 3)
        ),
        Read(12, dict.fromkeys(("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"), 3), masked=12),
        {"COVID-19_Radiography_Dataset/COVID.metadata.xlsx": "", "COVID-19_Radiography_Dataset/README.md.txt": "x\n"},
    ),
    Tree(
        "COVIDx (text tables without a header: patient, file, class, source)",
        tuple(f"train/study-{n}.png" for n in range(8)) + tuple(f"test/case-{n}.png" for n in range(4)),
        Read(12, {"positive": 6, "negative": 6}, 6, {"train": 8, "test": 4}),
        {
            f"{split}.txt": lines(
                *(
                    f"{100 * k + n // 2 + 1} {stem}-{n}.png {('positive', 'negative')[n % 2]} ricord"
                    for n in range(size)
                )
            )
            for k, (split, stem, size) in enumerate((("train", "study", 8), ("test", "case", 4)))
        },
        refused="test.txt",
        options={"label_column": "3", "patient_column": "1"},
    ),
    Tree(
        "Kermany chest X-ray",
        tuple(
            f"chest_xray/{split}/{path}"
            for split, k in (("train", 0), ("test", 100))
            for path in (
                *(f"NORMAL/IM-{115 + k + n:04}-0001.jpeg" for n in range(3)),
                *(f"PNEUMONIA/person{1 + k}_{kind}_{n}.jpeg" for n, kind in enumerate(("bacteria", "virus"))),
            )
        ),
        Read(10, {"NORMAL": 6, "PNEUMONIA": 4}, 8, {"train": 5, "test": 5}),
    ),
    Tree(
        "Montgomery County (a mask a lung)",
        tuple(
            f"MontgomerySet/{folder}/MCUCXR_{n:04}_{n % 2}.png"
            for n in range(1, 5)
            for folder in ("CXR_png", "ManualMask/leftMask", "ManualMask/rightMask")
        ),
        Read(4, masked=4, mask_classes=("leftMask", "rightMask")),
        {f"MontgomerySet/ClinicalReadings/MCUCXR_{n:04}_{n % 2}.txt": "Patient's Sex: F\n" for n in range(1, 5)},
    ),
    Tree(
        "Shenzhen",
        tuple(f"ChinaSet_AllFiles/CXR_png/CHNCXR_{n:04}_{n % 2}.png" for n in range(1, 7)),
        Read(6),
        {f"ChinaSet_AllFiles/ClinicalReadings/CHNCXR_{n:04}_{n % 2}.txt": "male 45yrs\n" for n in range(1, 7)},
    ),
    Tree(
        "MURA (the label is in the study's folder, not in the body part's)",
        MURA,
        Read(
            24,
            {"positive": 12, "negative": 12},
            6,
            {"train": 16, "val": 8},
            cells={"XR_HAND/patient00011/study1_positive/image1.png": {"patient_id": "patient00011"}},
        ),
        {
            "MURA-v1.1/train_image_paths.csv": lines(*(path for path in MURA if "train" in path)),
            "MURA-v1.1/valid_image_paths.csv": lines(*(path for path in MURA if "valid" in path)),
        },
        refused="study1_positive",
        options={"label_column": r"path:\d[_-](negative|positive)/"},
    ),
    Tree(
        "MURA, with its tables of studies (without a header, one row per folder)",
        MURA,
        Read(24, {"0": 12, "1": 12}, 6, {"train": 16, "val": 8}),
        {
            f"MURA-v1.1/{split}_labeled_studies.csv": lines(
                *dict.fromkeys(
                    f"{path.rpartition('/')[0]}/,{int('positive' in path)}" for path in MURA if f"/{split}/" in path
                )
            )
            for split in ("train", "valid")
        }
        | {"MURA-v1.1/train_image_paths.csv": lines(*(path for path in MURA if "train" in path))},
    ),
    Tree(
        "mini-DDSM (classes, patients, masks beside some images)",
        tuple(
            f"MINI-DDSM-Complete-JPEG-8/{c}/{p:04}/{c[0]}_{p:04}_1.{side}_{view}{end}.jpg"
            for c, first in (("Benign", 29), ("Cancer", 1), ("Normal", 2001))
            for p in range(first, first + 12)
            for side in ("LEFT", "RIGHT")
            for view in ("CC", "MLO")
            for end in (("", "_Mask") if c != "Normal" and side == "LEFT" else ("",))
        ),
        Read(144, {"Benign": 48, "Cancer": 48, "Normal": 48}, 36, masked=48),
    ),
    Tree(
        "CBIS-DDSM (masks in series of their own, named like nothing)",
        tuple(
            path
            for p in (1, 4, 9)
            for path in (
                f"CBIS-DDSM/Mass-Training_P_{p:05}_LEFT_CC/07-20-2016-DDSM-30288/1.000000-full mammogram images-24515/"
                "1-1.dcm",
                f"CBIS-DDSM/Mass-Training_P_{p:05}_LEFT_CC_1/07-21-2016-DDSM-7/1.000000-ROI mask images-16740/1-1.dcm",
            )
        ),
        Read(3, patients=3),
        refused="mask",
        options={"mask_column": "none"},
    ),
    Tree(
        "MIAS (a text that is no table)",
        tuple(f"mdb{n:03}.pgm" for n in range(1, 7)),
        Read(6),
        {
            "Info.txt": lines(
                "This file lists the films in the MIAS database and provides",
                "appropriate details as follows:",
                "",
                "mdb001 G CIRC B 535 425 197",
                "mdb002 G CIRC B 522 280 69",
                "mdb003 D NORM ",
                "mdb004 D NORM ",
                "mdb005 F CIRC B 477 133 30",
                "mdb005 F CIRC B 500 168 26",
                "mdb006 F NORM ",
            )
        },
        refused="Info.txt",
        options={"layout": "unlabelled"},
    ),
    Tree(
        "INbreast (a table with ; names the beginnings of the files)",
        tuple(f"INbreast Release 1.0/AllDICOMs/{n}_{who}_MG_{side}_CC_ANON.dcm" for n, who, side in INBREAST),
        Read(6, {"1": 2, "4a": 2, "5": 2}, 3),
        {
            "INbreast Release 1.0/INbreast.csv": lines(
                "Patient ID;Patient age;Laterality;View;Acquisition date;File Name;ACR;Bi-Rads",
                *(
                    f"removed;removed;{side};CC;201001;{n};{2 + k % 2};{('1', '4a', '5')[k // 2]}"
                    for k, (n, _, side) in enumerate(INBREAST)
                ),
            ),
            "INbreast Release 1.0/AllXML/20586908.xml": "<plist/>\n",
        },
        refused="Bi-Rads",
        options={"label_column": "Bi-Rads", "patients": "_([0-9a-f]{16})_"},
    ),
)
