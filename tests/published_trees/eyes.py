"""Eyes: Kermany's OCT, APTOS, Messidor, Messidor-2, EyePACS, IDRiD, DRIVE, PAPILA."""

from __future__ import annotations

from published_trees import Read, Tree, lines

IDRID = "IDRiD/B. Disease Grading"
GRADES = "Image name,Retinopathy grade,Risk of macular edema ,,,,,,,,,"
LESIONS = (("1. Microaneurysms", "MA"), ("2. Haemorrhages", "HE"), ("3. Hard Exudates", "EX"))

TREES = (
    Tree(
        "Kermany OCT 2017",
        tuple(
            f"OCT2017/{split}/{c}/{c}-{1016042 + p + 50 * k}-{n}.jpeg"
            for split, people in (("train", range(6)), ("test", range(6, 8)), ("val", range(8, 9)))
            for k, c in enumerate(("CNV", "DME", "DRUSEN", "NORMAL"))
            for p in people
            for n in (1, 2)
        ),
        Read(
            72,
            dict.fromkeys(("CNV", "DME", "DRUSEN", "NORMAL"), 18),
            36,
            {"train": 48, "test": 16, "val": 8},
        ),
    ),
    Tree(
        "APTOS 2019 (a table of labels, one without, a sample submission that is all 0)",
        tuple(f"train_images/{n:012x}.png" for n in range(10)) + tuple(f"test_images/{n:012x}.png" for n in (77, 78)),
        Read(12, dict.fromkeys("01234", 2), 0, {"train": 10}),
        {
            "train.csv": lines("id_code,diagnosis", *(f"{n:012x},{n % 5}" for n in range(10))),
            "test.csv": lines("id_code", *(f"{n:012x}" for n in (77, 78))),
            "sample_submission.csv": lines("id_code,diagnosis", *(f"{n:012x},0" for n in (77, 78))),
        },
    ),
    Tree(
        "Messidor (twelve folders of 100 images each, grades in spreadsheets)",
        tuple(
            f"Base{b}{k}/20051019_{38557 + 10 * b + n}_0100_PP.tif"
            for b in (1, 2, 3)
            for k in range(1, 5)
            for n in range(3)
        ),
        Read(36),
        {f"Annotation_Base{b}{k}.xls": "" for b in (1, 2, 3) for k in range(1, 5)},
        refused="two ways",
        options={"layout": "unlabelled"},
    ),
    Tree(
        "Messidor-2",
        (*tuple(f"IMAGES/20051020_{43808 + n}_0100_PP.png" for n in range(4)), "IMAGES/IM000001.JPG"),
        Read(4, {"0": 2, "2": 2}, 2),
        {
            "messidor_data.csv": lines(
                "image_id,adjudicated_dr_grade,adjudicated_dme,adjudicated_gradable",
                *(f"20051020_{43808 + n}_0100_PP.png,{n % 2 * 2},0,1" for n in range(4)),
                "IM000001.jpg,,,0",
            ),
            "messidor-2.csv": lines(
                "left;right",
                "20051020_43808_0100_PP.png;20051020_43809_0100_PP.png",
                "20051020_43810_0100_PP.png;20051020_43811_0100_PP.png",
            ),
        },
    ),
    Tree(
        "EyePACS (both eyes of a patient; the test images have no table)",
        tuple(f"train/{p}_{side}.jpeg" for p in (10, 13, 15, 16) for side in ("left", "right"))
        + tuple(f"test/{p}_{side}.jpeg" for p in (1, 2) for side in ("left", "right")),
        Read(12, {"0": 4, "1": 2, "4": 2}, 6, {"train": 8}, cells={"train/13_right.jpeg": {"patient_id": "13"}}),
        {
            "trainLabels.csv": lines(
                "image,level",
                *(f"{p}_{side},{k}" for p, k in ((10, 0), (13, 0), (15, 1), (16, 4)) for side in ("left", "right")),
            )
        },
    ),
    Tree(
        "IDRiD, A (segmentation, a folder a lesion)",
        tuple(
            f"A. Segmentation/{path}"
            for part, numbers in (("a. Training Set", (1, 2, 3)), ("b. Testing Set", (55, 56)))
            for n in numbers
            for path in (
                f"1. Original Images/{part}/IDRiD_{n:02}.jpg",
                *(
                    f"2. All Segmentation Groundtruths/{part}/{folder}/IDRiD_{n:02}_{end}.tif"
                    for folder, end in LESIONS
                ),
            )
        ),
        Read(
            5,
            splits={"train": 3, "test": 2},
            masked=5,
            mask_classes=("Haemorrhages", "Hard Exudates", "Microaneurysms"),
        ),
    ),
    Tree(
        "IDRiD, B (two grades; names that begin anew in each split)",
        tuple(f"{IDRID}/1. Original Images/a. Training Set/IDRiD_{n:03}.jpg" for n in range(1, 7))
        + tuple(f"{IDRID}/1. Original Images/b. Testing Set/IDRiD_{n:03}.jpg" for n in range(1, 4)),
        Read(
            9,
            {"0": 3, "1": 3, "2": 3},
            0,
            {"train": 6, "test": 3},
            cells={"a. Training Set/IDRiD_001.jpg": {"label": "1"}, "b. Testing Set/IDRiD_001.jpg": {"label": "2"}},
        ),
        {
            f"{IDRID}/2. Groundtruths/a. IDRiD_Disease Grading_Training Labels.csv": lines(
                GRADES, *(f"IDRiD_{n:03},{n % 3},{n % 2},,,,,,,,," for n in range(1, 7))
            ),
            f"{IDRID}/2. Groundtruths/b. IDRiD_Disease Grading_Testing Labels.csv": lines(
                GRADES, *(f"IDRiD_{n:03},{(n + 1) % 3},{n % 2},,,,,,,,," for n in range(1, 4))
            ),
        },
        refused="Retinopathy grade",
        options={"label_column": "Retinopathy grade"},
    ),
    Tree(
        "DRIVE (two kinds of masks, neither named like the image)",
        tuple(
            f"DRIVE/{part}/{path}"
            for part, numbers in (("training", (21, 22)), ("test", (1, 2)))
            for n in numbers
            for path in (
                f"images/{n:02}_{part}.tif",
                f"1st_manual/{n:02}_manual1.gif",
                f"mask/{n:02}_{part}_mask.gif",
            )
        ),
        Read(
            4,
            splits={"train": 2, "test": 2},
            masked=4,
            cells={"21_training.tif": {"mask_path": "DRIVE/training/1st_manual/21_manual1.gif"}},
        ),
        refused="1st_manual/",
        options={"mask_column": "1st_manual"},
    ),
    Tree(
        "PAPILA (pictures with drawn contours beside the images; tables in spreadsheets)",
        tuple(f"PapilaDB/FundusImages/RET{p:03}{side}.jpg" for p in (2, 4, 5) for side in ("OD", "OS"))
        + tuple(
            f"PapilaDB/ExpertsSegmentations/ImagesWithContours/Opht_cont_RET{p:03}{side}.jpg"
            for p in (2, 4, 5)
            for side in ("OD", "OS")
        ),
        Read(6, patients=3),
        {
            "PapilaDB/ClinicalData/patient_data_od.xlsx": "",
            "PapilaDB/ExpertsSegmentations/Contours/RET002OD_cup_exp1.txt": "1 2\n",
        },
        refused="ExpertsSegmentations",
        options={"layout": "unlabelled"},
        data="PapilaDB/FundusImages",
    ),
)
